"""A network with a square vision tower as a `Reward`: pictures to views, views in batches to scores.

Pictures that carry no gradient are scored from the exact view, which starts from bytes; a tensor that requires a
gradient is scored from the view of tensors and keeps its gradient. See `rewards.views`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from rewards.base import ImagesLike, Scores, as_images, check_prompts, check_scores
from rewards.errors import RewardError
from rewards.fingerprints import fingerprint
from rewards.llava.normalise import CLIP_MEAN, CLIP_STD
from rewards.llava.pictures import as_pictures
from rewards.views import View

Chunk: TypeAlias = Callable[[int, int], Tensor]  # views (B, 3, S, S) of pictures start to stop


class Network(Protocol):
    """What scores pixel values."""

    @property
    def weight(self) -> Tensor:
        """The one that meets the pixels, for its device and dtype."""
        ...

    def text(self, prompts: Sequence[str]) -> Tensor:
        """What the network needs of P prompts, (P, ...)."""
        ...

    def score(self, pixels: Tensor, text: Tensor) -> Tensor:
        """Scores (B,) of normalised pixels (B, 3, S, S), each with its row of `text`."""
        ...


class VisionReward:
    """Scores of a network; one for each picture and prompt, whatever else is in the call.

    Lists of PIL images may be of any mixture of sizes and modes: greyscale and palette become RGB, transparency is
    dropped, 16 bits become 8.

    Args:
        name: what `load_reward` calls it.
        network: scores pixel values.
        view: what it sees of a picture.
        batch_size: pictures in one forward pass; halved where memory runs out.
        files: that the network was read from, for its revision.
        settings: what else its scores depend on, for its revision.
    """

    absolute = True
    differentiable = True

    def __init__(
        self,
        name: str,
        network: Network,
        view: View,
        *,
        batch_size: int = 16,
        files: Sequence[Path] = (),
        settings: str = "",
    ) -> None:
        if batch_size < 1:
            raise RewardError(f"Got batch_size {batch_size}; expected at least 1.")
        self.name = name
        self._source = tuple(files), settings
        self.network = network
        self.view = view
        self._batch_size = batch_size

    @cached_property
    def revision(self) -> str:
        """Hash of the weights, their number format and the settings, for records and caches."""
        files, settings = self._source
        return fingerprint(files, f"{settings} {self.network.weight.dtype}")

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores of N pictures against their prompts, (N,) float32.

        Raises:
            RewardError: pictures or prompts that cannot be scored, or a score that is not finite.
        """
        smooth = isinstance(images, Tensor) and images.requires_grad and torch.is_grad_enabled()
        views, count = self._smooth(images) if smooth else self._exact(images)
        check_texts(prompts, count)
        with torch.set_grad_enabled(smooth):
            scores = torch.cat(list(self._scores(views, prompts)))
        return check_scores(scores.to(images.device if isinstance(images, Tensor) else "cpu"), self.name, count)

    def _exact(self, images: ImagesLike) -> tuple[Chunk, int]:
        pictures = as_pictures(images)

        def views(start: int, stop: int) -> Tensor:
            return torch.stack([self.view.of_picture(picture) for picture in pictures[start:stop]])

        return views, len(pictures)

    def _smooth(self, images: ImagesLike) -> tuple[Chunk, int]:
        pixels = as_images(images)
        return lambda start, stop: self.view.of_tensor(pixels[start:stop].float()), len(pixels)

    def _scores(self, views: Chunk, prompts: Sequence[str]) -> Iterator[Tensor]:
        """Scores of each batch, float32; equal prompts go through the text tower once."""
        distinct = list(dict.fromkeys(prompts))
        parts = [distinct[start : start + self._batch_size] for start in range(0, len(distinct), self._batch_size)]
        with torch.no_grad():
            text = torch.cat([self.network.text(part) for part in parts])  # (P, ...)
        rows = torch.tensor([distinct.index(prompt) for prompt in prompts], device=text.device)
        start = 0
        while start < len(prompts):
            stop = min(start + self._batch_size, len(prompts))
            scores = self._attempt(views(start, stop), text[rows[start:stop]])
            if scores is not None:
                yield scores
                start = stop

    def _attempt(self, views: Tensor, text: Tensor) -> Tensor | None:
        """Scores of one batch, or None if memory ran out and fewer pictures might fit."""
        try:
            weight = self.network.weight
            return self.network.score(normalised(views.to(weight.device)).to(weight.dtype), text).float()
        except torch.OutOfMemoryError as error:
            if len(views) == 1:
                raise RewardError(
                    f"The device's memory does not hold one picture for {self.name!r}; take dtype='bfloat16' or "
                    "device='cpu'."
                ) from error
            self._batch_size = (len(views) + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def normalised(views: Tensor) -> Tensor:
    """Views (N, 3, S, S) in [0, 1] as CLIP and BLIP take them: (x − mean) / std for each channel."""
    mean, std = (views.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (views - mean) / std


def check_texts(prompts: Sequence[str], count: int) -> None:
    """Raise `RewardError` unless there are `count` prompts and each is a string; an empty one is scored too."""
    check_prompts(torch.empty(count), prompts)
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise RewardError(f"Got a {type(prompt).__name__} as prompt {number}; expected a string.")
