"""Particles become scores: decode, then ask the reward; the pictures of the last look stay for whoever saves them.

A reward that only compares (general preference) is asked for the probabilities that one picture is preferred to
another; their ranking by Borda's count gives the scores, for the reasons in `rewards.preferences`.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from bon_search.ledger import Cost, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from pipelines import Particles, Sampler
    from rewards import Reward
    from rewards.preferences import Ranking


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
        last_scores: (N,) what the reward gave for the last look, NaN and all; None if it gave nothing.
        last_ranking: the tournament of the last look, for a reward that only compares; else None.
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
        self._reward = reward
        self._prompt = prompt
        self._ledger = ledger
        self._scope = scope or (lambda n: nullcontext())
        self._last: tuple[Particles, Tensor] | None = None
        self.last_scores: Tensor | None = None
        self.last_ranking: Ranking | None = None

    def __call__(self, particles: Particles) -> Tensor:
        """Scores of the particles' pictures (previews, if unfinished), (N,); of a video, the mean over its key frames.

        Raises:
            RewardError: The reward fails, runs out of memory, or gives no finite score for each picture.
        """
        from pipelines.video import key_frames

        looks = key_frames(self.images(particles)).unbind(dim=1)  # the picture, or two frames of a video
        self._ledger.reserve(Cost(rewards=len(particles) * len(looks)))
        given = sum(self._ask(images) for images in looks[1:]) + self._ask(looks[0])
        self.last_scores = self._ranked(given / len(looks))
        return self._finite(self.last_scores, particles)

    def _ranked(self, given: Tensor) -> Tensor:
        """Scores (N,) as they are, or by the tournament that probabilities (N, N) tell of."""
        from rewards.preferences import rank

        if given.ndim == 1:
            return given
        self.last_ranking = rank(given)
        return self.last_ranking.scores.to(given)

    def _ask(self, images: Tensor) -> Tensor:
        """What the reward says of N pictures: (N,) float32, not yet known to be finite, or (N, N) if it compares."""
        import torch

        from pipelines.foreign import one_line
        from pipelines.microbatch import is_out_of_memory
        from rewards.base import as_scores
        from rewards.errors import RewardError
        from rewards.preferences import Compares

        n = len(images)
        try:
            with torch.no_grad(), self._scope(n):
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
        if self._last is None or self._last[0] is not particles:
            self._last, self.last_scores, self.last_ranking = (particles, self.sampler.decode(particles)), None, None
        return self._last[1]

    def _finite(self, scores: Tensor, particles: Particles) -> Tensor:
        from rewards.errors import ScoreError

        for score, stream in zip(scores.tolist(), particles.streams, strict=True):
            if not math.isfinite(score):
                raise ScoreError(
                    f"The reward {self._reward.name} gave {score} for the candidate of seed {stream}; look at its "
                    "picture, or run the reward in float32."
                )
        return scores

    @property
    def last_look(self) -> tuple[Particles, Tensor] | None:
        """The last look, whose pictures exist even if the reward failed on them."""
        return self._last
