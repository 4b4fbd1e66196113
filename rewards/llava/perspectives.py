"""Several checkpoints over one base model: a picture is seen once, and judged from every perspective."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewards.base import ImagesLike, Scores
from rewards.devices import device_of, dtype_of
from rewards.errors import CheckpointError, RewardError
from rewards.llava.adapters import Shared
from rewards.llava.backbone import Inputs
from rewards.llava.decoder import compile_layers
from rewards.llava.families import Base, load_base
from rewards.llava.hub import locate
from rewards.llava.layouts import NUM_CROPS
from rewards.llava.loading import (
    SkipCAMode,
    base_folder,
    base_name,
    build_reward,
    check_family,
    check_skipca,
    warn_of_initial,
)
from rewards.llava.official import read_official
from rewards.llava.pictures import as_pictures
from rewards.llava.preparing import prepared, reunited
from rewards.llava.published import PublishedReward, check_prompts, windows_of
from rewards.llava.weights import DeviceMap

_REFUSED = 1e4  # what a picture below a limit loses: far more than scores differ, little enough for float32


class Perspectives:
    """Named columns of scores from one backbone, one set of adapters per perspective.

    Attributes:
        rewards: each perspective's reward, by name; each can be used alone.
    """

    def __init__(self, shared: Shared, rewards: Mapping[str, PublishedReward], inputs: Inputs) -> None:
        self.rewards = dict(rewards)
        self._shared, self._inputs = shared, inputs

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> dict[str, Scores]:
        """Scores (N,) of N pictures from every perspective, each as that checkpoint alone would give them."""
        return self.columns(images, prompts, tuple(self.rewards))

    def columns(self, images: ImagesLike, prompts: Sequence[str], names: Sequence[str]) -> dict[str, Scores]:
        """The same for the perspectives `names`.

        Raises:
            RewardError: no such perspective, or pictures or prompts that cannot be scored.
        """
        for name in names:
            self._known(name).check_company(prompts)
        pictures = as_pictures(images)
        rewards = {name: self.rewards[name] for name in names}
        allow_empty = all(reward.allow_empty for reward in rewards.values())
        check_prompts(prompts, len(pictures), allow_empty=allow_empty)
        windows = windows_of(rewards.values(), pictures)
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        for window in prepared(self._inputs, pictures, prompts, windows):
            with self._shared.keeping():
                for name, reward in rewards.items():
                    parts[name].append(reward.batches(window.rows))
        scores = {
            name: reward.scores(reward.checked(reunited(windows, parts[name])), prompts)
            for name, reward in rewards.items()
        }
        return (
            {name: column.to(images.device) for name, column in scores.items()}
            if isinstance(images, Tensor)
            else scores
        )

    def combined(
        self, weights: Mapping[str, float], *, at_least: Mapping[str, float] | None = None
    ) -> "CombinedPerspectives":
        """One reward: a weighted sum of perspectives, behind limits that a picture must reach.

        Args:
            weights: perspective → weight; one alone is that perspective.
            at_least: perspective → score below which a picture ranks behind all that reach it, for example
                {"safety": 0.0}, the even odds of a classification head.

        Raises:
            RewardError: no such perspective, no weights, or a limit on one without absolute scores.
        """
        limits = dict(at_least or {})
        if not weights:
            raise RewardError(f"Got no weights; expected at least one of {', '.join(self.rewards)}.")
        for name in (*weights, *limits):
            if name in limits and not self._known(name).absolute:
                raise RewardError(f"Got a limit on {name!r}, whose head only compares; take one with absolute scores.")
            self._known(name)
        return CombinedPerspectives(self, dict(weights), limits)

    def _known(self, name: str) -> PublishedReward:
        if name not in self.rewards:
            raise RewardError(f"Got perspective {name!r}; expected one of {', '.join(self.rewards)}.")
        return self.rewards[name]


class CombinedPerspectives:
    """A weighted sum of perspectives with limits, as a `Reward`; from `Perspectives.combined`."""

    def __init__(self, perspectives: Perspectives, weights: dict[str, float], limits: dict[str, float]) -> None:
        self._perspectives, self._weights, self._limits = perspectives, weights, limits
        self._names = tuple(dict.fromkeys([*weights, *limits]))
        self.name = "llava-reward:" + "+".join(self._names)
        self.absolute = all(perspectives.rewards[name].absolute for name in self._names)

    @property
    def revision(self) -> str:
        """Content hash of the checkpoints, weights and limits, 12 hexadecimal digits."""
        parts = {name: self._perspectives.rewards[name].revision for name in self._names}
        return hashlib.sha256(repr((parts, self._weights, self._limits)).encode()).hexdigest()[:12]

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores (N,) float32; a picture below a limit loses 10 000 and what it lacks."""
        columns = self._perspectives.columns(images, prompts, self._names)
        total = torch.stack([weight * columns[name] for name, weight in self._weights.items()]).sum(0)
        for name, limit in self._limits.items():
            lacking = limit - columns[name]
            total = torch.where(lacking > 0, -_REFUSED - lacking, total)
        return total


def load_perspectives(  # noqa: PLR0913  as many as for one checkpoint
    checkpoints: Mapping[str, str | Path],
    *,
    base: str | Path | None = None,
    skipca: SkipCAMode | None = None,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device | None = None,
    device_map: DeviceMap | None = None,
    num_crops: int = NUM_CROPS,
    batch_size: int | None = None,
    compile: bool = False,
    allow_empty: bool = False,
) -> Perspectives:
    """Published checkpoints of one base model, which is loaded once.

    Args:
        checkpoints: perspective → folder or name, for example {"safety": "llava-reward:safety"}; see `hub.locate`.
        base: folder or hub name of the base model; the published one of that family if None.
        skipca: "masked" or "official", as for `load_reward`.
        dtype: of the backbone; heads are float32.
        device: where it runs; a GPU if there is one.
        device_map: which module goes where, instead of `device`.
        num_crops: for Phi, at most so many crops of a picture.
        batch_size: pictures in one forward pass; see `published.PublishedReward`.
        compile: run the decoder layers through `torch.compile`; see `loading.load_published`.
        allow_empty: take prompts without a word.

    Raises:
        CheckpointError: a damaged checkpoint, a full fine-tune, or another base model's.
    """
    check_skipca(skipca)
    if not checkpoints:
        raise RewardError("Got no checkpoints; expected a name and a folder for each perspective.")
    read = {name: read_official(locate(folder)) for name, folder in checkpoints.items()}
    for name, checkpoint in read.items():
        if checkpoint.full:
            raise CheckpointError(
                f"The checkpoint of {name!r} is a full fine-tune, which shares no base model; load it by itself."
            )
    name_of_base = base_name(next(iter(read.values())), base)
    folder = base_folder(next(iter(read.values())), name_of_base)
    for checkpoint in read.values():
        check_family(checkpoint, folder)
    loaded = load_base(
        folder, num_crops=num_crops, device=device_of(device), dtype=dtype_of(dtype), device_map=device_map
    )
    for checkpoint in read.values():
        warn_of_initial(checkpoint, loaded)
    shared, inputs = Shared(loaded.backbone, read), loaded.inputs
    if compile:
        compile_layers(loaded.backbone)
    rewards = {
        name: build_reward(
            checkpoint, Base(shared.views[name], inputs, folder), base=name_of_base, skipca=skipca,
            batch_size=batch_size, allow_empty=allow_empty,
        )
        for name, checkpoint in read.items()
    }  # fmt: skip
    for reward in rewards.values():  # weights are exchanged between the pass of one and the backward pass of another
        reward.differentiable = False
    return Perspectives(shared, rewards, inputs)
