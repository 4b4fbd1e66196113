"""Particles become scores: decode, then ask the reward; the pictures of the last look stay for whoever saves them.

A reward that only compares (general preference) is asked for the probabilities that one picture is preferred to
another; their ranking by Borda's count gives the scores, for the reasons in `rewards.preferences`.
"""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from bon_search.errors import SearchError
from bon_search.ledger import Cost, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from pipelines import Particles, Sampler
    from pipelines.sampler import DifferentiableSampler
    from rewards import Reward
    from rewards.preferences import Ranking


@dataclass
class _Look:
    """The last look: whom at, their pictures, and what the reward said of them."""

    particles: Particles | None = None
    images: Tensor | None = None
    scores: Tensor | None = None
    ranking: Ranking | None = None

    def shows(self, particles: Particles) -> bool:
        """Whether it was at these particles, whatever they are called: at the same numbers in memory."""
        mine, other = self.particles, particles
        return mine is not None and (mine is other or (mine.step == other.step and _same(mine.latents, other.latents)))


@dataclass(frozen=True)
class Look:
    """A population at the moment at which the reward has judged it, for whoever watches a run (`Run.on_look`).

    Attributes:
        step: Where the particles are; unfinished ones are seen by their previews.
        steps: Of the sampler that made the pictures: K, or fewer for a draft.
        streams: (N,) names of the particles.
        images: (N, 3, H, W) in [0, 1]; of videos (N, F, 3, H, W).
        scores: (N,) higher is better.
    """

    step: int
    steps: int
    streams: tuple[int, ...]
    images: Tensor
    scores: Tensor


class PictureCritic:
    """The critic of a picture: `reward(sampler.decode(particles), prompt)`.

    Args:
        sampler: Decodes; give the metered one, so that decodes are counted.
        reward: Judges the pictures.
        prompt: What they should show.
        ledger: Where reward calls are entered, before they are made.
        scope: Makes the context in which n pictures are scored (for example
            `pipelines.batch_invariant`, so that a score does not depend on the company).

    Attributes:
        sampler: As given.
        absolute: Whether the reward's scores can be compared over time and between batches.
        on_look: Called with each population that has just been judged, drafts and previews too.
    """

    def __init__(
        self,
        sampler: Sampler,
        reward: Reward,
        prompt: str,
        ledger: Ledger,
        scope: Callable[[int], AbstractContextManager[object]] | None = None,
    ) -> None:
        self.sampler = sampler
        self.absolute = reward.absolute
        self.on_look: Callable[[Look], object] = lambda look: None
        self._reward = reward
        self._prompt = prompt
        self._ledger = ledger
        self._scope = scope
        self._last = _Look()
        self._gradients = False

    def through(self, sampler: Sampler) -> PictureCritic:
        """The same reward and prompt for particles of another sampler, which decodes."""
        other = copy.copy(self)
        other.sampler, other._last = sampler, _Look()
        return other

    def with_grad(self) -> PictureCritic:
        """The same, whose scores carry a gradient of the particles; what it sees is the last look of both.

        Raises:
            SearchError: The reward does not say that it is differentiable, or the sampler lets no gradient through.
        """
        if getattr(self._reward, "differentiable", False) is not True:
            raise SearchError(
                f"The reward {self._reward.name} gives no gradient (differentiable is not True), which this search "
                "climbs; take one that does, such as the embedded llava-reward or imagereward, or a search without "
                "gradients, such as zero_order."
            )
        sampler = cast("DifferentiableSampler", self.sampler)
        other = copy.copy(self)
        other.sampler, other._gradients = sampler.with_grad(), True
        return other

    def __call__(self, particles: Particles) -> Tensor:
        """Scores of the particles' pictures (previews, if unfinished), (N,); of a video, the mean over its key frames.

        Raises:
            RewardError: The reward fails, runs out of memory, or gives no finite score for each picture.
        """
        from pipelines.video import key_frames

        looks = key_frames(self.images(particles)).unbind(dim=1)  # the picture, or two frames of a video
        self._ledger.reserve(Cost(rewards=len(particles) * len(looks)))
        given = sum(self._ask(images) for images in looks[1:]) + self._ask(looks[0])
        scores = self._ranked(given / len(looks))
        self._last.scores = scores.detach()
        self._finite(scores, particles)
        self._show(particles, scores.detach())
        return scores

    def _show(self, particles: Particles, scores: Tensor) -> None:
        images = self._last.images
        assert images is not None
        self.on_look(Look(particles.step, self.sampler.steps, particles.streams, images, scores))

    def _ranked(self, given: Tensor) -> Tensor:
        """Scores (N,) as they are, or by the tournament that probabilities (N, N) tell of."""
        from rewards.preferences import rank

        if given.ndim == 1:
            return given
        self._last.ranking = rank(given)
        return self._last.ranking.scores.to(given)

    def _ask(self, images: Tensor) -> Tensor:
        """What the reward says of N pictures: (N,) float32, not yet known to be finite, or (N, N) if it compares."""
        import torch

        from pipelines.foreign import one_line
        from pipelines.microbatch import is_out_of_memory
        from rewards.base import as_scores
        from rewards.errors import RewardError
        from rewards.preferences import Compares

        n = len(images)
        alone = self._gradients and self._scope is not None  # going back, no scope keeps particles apart
        if alone and n > 1:
            return torch.cat([self._ask(image) for image in images[:, None]])
        try:
            with torch.set_grad_enabled(self._gradients and torch.is_grad_enabled()), self._scoped(n):
                if not self.absolute and isinstance(self._reward, Compares):
                    return self._reward.chances(self._reward.heads(images, [self._prompt] * n))
                return as_scores(self._reward(images, [self._prompt] * n), self._reward.name, n)
        except RewardError:
            raise
        except Exception as error:  # other people's code: what it says, in one sentence; the cause stays attached
            cure = (
                "give a smaller --batch-size, or load it on another device"
                if is_out_of_memory(error)
                else "see its documentation, or choose another reward"
            )
            said = f"{type(error).__name__}: {one_line(error)}"
            raise RewardError(f"The reward {self._reward.name} failed on {n} pictures ({said}); {cure}.") from error

    def images(self, particles: Particles) -> Tensor:
        """Pictures (N, 3, H, W) or videos (N, F, 3, H, W) in [0, 1]; those of the last look are not decoded again."""
        last = self._last
        if last.images is not None and last.shows(particles) and not self._gradients:
            last.particles = particles
            return last.images
        images = self.sampler.decode(particles)
        last.particles = particles.detach() if self._gradients else particles
        last.images, last.scores, last.ranking = images.detach(), None, None
        return images

    def _scoped(self, n: int) -> AbstractContextManager[object]:
        return nullcontext() if self._scope is None else self._scope(n)

    def _finite(self, scores: Tensor, particles: Particles) -> None:
        from rewards.errors import ScoreError

        for score, stream in zip(scores.detach().tolist(), particles.streams, strict=True):
            if not math.isfinite(score):
                raise ScoreError(
                    f"The reward {self._reward.name} gave {score} for the candidate of seed {stream}; look at its "
                    "picture, or run the reward in float32."
                )

    @property
    def last_look(self) -> tuple[Particles, Tensor] | None:
        """The last look, whose pictures exist even if the reward failed on them."""
        last = self._last
        return None if last.particles is None or last.images is None else (last.particles, last.images)

    @property
    def last_scores(self) -> Tensor | None:
        """(N,) what the reward gave for the last look, NaN and all; None if it gave nothing."""
        return self._last.scores

    @property
    def last_ranking(self) -> Ranking | None:
        """The tournament of the last look, for a reward that only compares; else None."""
        return self._last.ranking


def _same(mine: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same numbers in memory."""
    return mine.data_ptr() == other.data_ptr() and mine.shape == other.shape
