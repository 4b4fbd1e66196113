"""A model that reads one picture with one prompt at a time, as a `Reward`: the large ones that write and answer.

One at a time, nothing is padded, so that no score depends on its companions; the published code works so, too. Prompts
are read whole, however long.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor

from rewards.base import ImagesLike, Scores, as_images, check_scores
from rewards.fingerprints import fingerprint
from rewards.llava.pictures import as_pictures
from rewards.vision import check_texts

Look: TypeAlias = Image.Image | Tensor  # an RGB picture, or (3, H, W) in [0, 1] that carries a gradient


class SingleReward:
    """Scores of such a model.

    Lists of PIL images may be of any mixture of sizes and modes, see `rewards.vision.VisionReward`.

    Args:
        name: what `load_reward` calls it.
        score: of one picture with its prompt, a tensor ().
        differentiable: whether `score` takes tensors and keeps their gradient.
        files: that it was read from, for its revision.
        settings: what else its scores depend on, for its revision.
    """

    absolute = True

    def __init__(
        self,
        name: str,
        score: Callable[[Look, str], Tensor],
        *,
        differentiable: bool,
        files: Sequence[Path] = (),
        settings: str = "",
    ) -> None:
        self.name = name
        self._source = tuple(files), settings
        self.differentiable = differentiable
        self._score = score

    @cached_property
    def revision(self) -> str:
        """Hash of the weights and settings, for records and caches."""
        return fingerprint(*self._source)

    def check_prompt(self, prompt: str) -> None:
        """Raise what `score` would of a prompt that it cannot judge, if it has a method of this name."""
        check = getattr(self._score, "check_prompt", None)
        if check is not None:
            check(prompt)

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores of N pictures against their prompts, (N,) float32.

        Raises:
            RewardError: pictures or prompts that cannot be scored, or a score that is not finite.
        """
        smooth = isinstance(images, Tensor) and images.requires_grad and torch.is_grad_enabled() and self.differentiable
        looks: Sequence[Look] = list(as_images(images).float()) if smooth else as_pictures(images)
        check_texts(prompts, len(looks))
        with torch.set_grad_enabled(smooth):
            scores = torch.stack(list(self._scores(looks, prompts)))
        return check_scores(scores.to(images.device if isinstance(images, Tensor) else "cpu"), self.name, len(looks))

    def _scores(self, looks: Sequence[Look], prompts: Sequence[str]) -> Iterator[Tensor]:
        for look, prompt in zip(looks, prompts, strict=True):
            yield self._score(look, prompt).float()
