"""LLaVA-Reward's published checkpoints as a `Reward`, on any of their backbones."""

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from rewards.base import ImagesLike, Scores, check_scores
from rewards.errors import RewardError, ScoreError
from rewards.fingerprints import fingerprint
from rewards.llava import weights
from rewards.llava.backbone import Inputs
from rewards.llava.batches import MicroBatches, Row
from rewards.llava.decoder import device_of
from rewards.llava.heads import win_probabilities
from rewards.llava.official import Official
from rewards.llava.pictures import as_pictures
from rewards.llava.preparing import by_picture, in_order, prepared, reunited, with_gradient
from rewards.llava.scoring import Scorer, distinct
from rewards.preferences import borda

_BATCH, _BATCH_CPU = 16, 1  # pictures in one pass
_PROMPTS = 64  # on one picture in one pass; each takes memory for its own words alone


class PublishedReward:
    """Scores of a published checkpoint; pictures may be of any mixture of sizes.

    Bradley-Terry and classification heads give absolute scores: one for each picture and prompt, whatever else is in
    the call (unless the scorer is `official` and the batch size above 1). A general-preference head gives none: here
    the score of a picture is then the mean probability with which it is preferred to the others of the same prompt in
    the same call, and `absolute` is False. Absolute scores of images that require a gradient have one
    (`preparing.with_gradient`).

    Args:
        checkpoint: what was read from disk.
        scorer: backbone and head.
        inputs: prepares pictures and prompts for them.
        batch_size: pictures in one forward pass, halved where memory runs out; by default 16, but 1 on a CPU, which
            more would not make faster, unless the scorer is `official`. Prompts on one picture run together anyway.
        base: name of the base model, for records.
        base_folder: where its weights lie, for the revision.
        allow_empty: take prompts without a word, for data that has none; otherwise they are an error.

    Attributes:
        batches: outputs of the head for rows that `inputs` prepared.
        differentiable: whether gradients reach the pictures.
    """

    name = "llava-reward"

    def __init__(
        self,
        checkpoint: Official,
        scorer: Scorer,
        inputs: Inputs,
        *,
        batch_size: int | None = None,
        base: str = "",
        base_folder: Path | None = None,
        allow_empty: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.scorer = scorer
        self.tau = checkpoint.settings.general_preference_tau
        self.absolute = scorer.head.value_head.out_features == 1
        self.differentiable = self.absolute
        self.base = base
        self._base_folder = base_folder
        self.allow_empty = allow_empty
        self.inputs = inputs
        if batch_size is None:
            batch_size = _default_batch(scorer)
        prompts = _PROMPTS if scorer.shares else batch_size
        self.batches = MicroBatches(scorer, batch_size, prompts=prompts, fixed=scorer.official)

    @cached_property
    def revision(self) -> str:
        """Hash of the checkpoint, the base model and all options that change a score, 12 hexadecimal digits."""
        scorer, folder = self.scorer, self.checkpoint.folder
        company = self.batches.size if scorer.official else None  # who runs with whom is part of the score
        crops, number = getattr(self.inputs, "num_crops", None), next(scorer.backbone.norm.parameters()).dtype
        base = weights.fingerprint(self._base_folder) if self._base_folder else self.base
        options = (base, scorer.official, company, scorer.mean, scorer.layer, crops, number)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return fingerprint(files, f"{options} {[str(path.relative_to(folder)) for path in files]}")

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores of N pictures against their prompts, (N,) float32.

        Raises:
            RewardError: pictures or prompts that cannot be scored, among them one picture alone where the head only
                compares.
        """
        self.check_company(prompts)
        return self.scores(self.heads(images, prompts), prompts)

    def scores(self, outputs: Tensor, prompts: Sequence[str]) -> Scores:
        """Scores (N,) that follow from the head's outputs (N, d)."""
        scores = outputs[:, 0] if self.absolute else self._against_others(outputs, prompts)
        return check_scores(scores, self.name, len(outputs))

    def check_company(self, prompts: Sequence[str]) -> None:
        """Raise `RewardError` if the head only compares, and a prompt has one picture alone."""
        if not self.absolute:
            _check_company(prompts)

    def heads(self, images: ImagesLike, prompts: Sequence[str]) -> Tensor:
        """What the head gives for N pictures and their prompts, (N, d) float32.

        Raises:
            RewardError: pictures or prompts that cannot be scored.
        """
        pictures = as_pictures(images)
        check_prompts(prompts, len(pictures), allow_empty=self.allow_empty)
        if self.differentiable and isinstance(images, Tensor) and images.requires_grad and torch.is_grad_enabled():
            return self.checked(self._differentiable(images, pictures, prompts)).to(images.device)
        windows = windows_of([self], pictures)
        parts = [self.batches(window.rows) for window in prepared(self.inputs, pictures, prompts, windows)]
        outputs = self.checked(reunited(windows, parts))
        return outputs.to(images.device) if isinstance(images, Tensor) else outputs

    def checked(self, outputs: Tensor) -> Tensor:
        """The head's outputs (N, d) themselves.

        Raises:
            ScoreError: they are not finite.
        """
        broken = (~outputs.isfinite()).any(1).nonzero().flatten().tolist()
        if broken:
            raise ScoreError(
                f"Reward {self.name!r} gave values that are not finite for candidate {broken[0]} ({len(broken)} of "
                f"{len(outputs)}); look at that picture, or run the reward in float32."
            )
        return outputs

    def preference(self, images: ImagesLike, prompt: str, *, bfloat16: bool = False) -> Tensor:
        """P[i, j], the probability that picture i is preferred to j for `prompt`; (N, N), from one pass per picture.

        Args:
            images: N pictures.
            prompt: of all of them.
            bfloat16: round as the published evaluation does; see `heads.win_probabilities`.

        Raises:
            RewardError: pictures or a prompt that cannot be scored.
        """
        if not isinstance(prompt, str):
            raise RewardError(f"Got a {type(prompt).__name__} as prompt; expected one string for all pictures.")
        pictures = as_pictures(images)
        return win_probabilities(self.heads(pictures, [prompt] * len(pictures)), self.tau, bfloat16=bfloat16)

    def chances(self, outputs: Tensor, others: Tensor | None = None) -> Tensor:
        """P[i, j], the probability that i is preferred to j of the others (of themselves if None), from `heads`.

        Args:
            outputs: (N, d).
            others: (M, d), of the same prompt.

        Returns:
            (N, M) float32.
        """
        return win_probabilities(outputs, self.tau, others=others)

    def _differentiable(self, images: Tensor, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Outputs (N, d) of the head with the gradient of `images`, in passes of the usual size, in their order."""
        device = device_of(self.scorer.head)
        seen = [
            with_gradient(self.inputs, picture, pixels.to(device))
            for picture, pixels in zip(pictures, images, strict=True)
        ]
        rows = [Row(picture, self.inputs.ids(prompt, picture)) for picture, prompt in zip(seen, prompts, strict=True)]
        parts = [[rows[number] for number in numbers] for numbers in in_order(len(rows), self.batches.size)]
        features = self.scorer.backbone.features
        return torch.cat([self.scorer.outputs(part, features(distinct(part))).float() for part in parts])

    def _against_others(self, outputs: Tensor, prompts: Sequence[str]) -> Tensor:
        scores = torch.empty(len(outputs), device=outputs.device)
        for prompt in dict.fromkeys(prompts):
            members = [index for index, other in enumerate(prompts) if other == prompt]
            scores[members] = borda(self.chances(outputs[members])).to(scores)
        return scores


def windows_of(rewards: Collection[PublishedReward], images: Sequence[Image.Image]) -> list[list[int]]:
    """Numbers of the rows that come together, so that each of `rewards` can make its batches of them."""
    size = max(reward.batches.size for reward in rewards)
    if any(reward.scorer.official for reward in rewards):  # who runs with whom is part of the score
        return in_order(len(images), size)
    return by_picture(images, size)


def check_prompts(prompts: Sequence[str], count: int, *, allow_empty: bool = False) -> None:
    """Raise `RewardError` unless there are `count` prompts of valid text, with words in them or `allow_empty`."""
    if isinstance(prompts, str):
        raise RewardError(f"Got one string as prompts; expected a sequence: write [{prompts!r}] * {count}.")
    if len(prompts) != count:
        raise RewardError(f"Got {count} images and {len(prompts)} prompts; expected one prompt for each image.")
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise RewardError(f"Got a {type(prompt).__name__} as prompt of image {number}; expected a string.")
        if not prompt.strip() and not allow_empty:
            raise RewardError(
                f"Got the empty prompt {prompt!r} for image {number}; expected words that say what the picture shows, "
                "or allow_empty=True for data without prompts."
            )
        if any(0xD800 <= ord(character) < 0xE000 for character in prompt):
            raise RewardError(f"The prompt {prompt!r} of image {number} is no valid text; expected whole characters.")


def _default_batch(scorer: Scorer) -> int:
    alone = device_of(scorer.backbone.norm).type == "cpu" and not scorer.official
    return _BATCH_CPU if alone else _BATCH


def _check_company(prompts: Sequence[str]) -> None:
    alone = [prompt for prompt in prompts if list(prompts).count(prompt) == 1]
    if alone and not isinstance(prompts, str):
        raise RewardError(
            f"Got one picture for {alone[0]!r}, but this checkpoint's head (general preference) only compares pictures "
            "of one prompt; give it two or more, read `heads`, or take a Bradley-Terry checkpoint."
        )
