"""Drain a search under a budget: scored populations come in, finished candidates go out as they are made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bon_search.errors import BudgetExceeded
from bon_search.result import Candidate, SearchResult, ranked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL import Image
    from torch import Tensor

    from bon_search.critic import PictureCritic
    from bon_search.ledger import Ledger
    from bon_search.result import Recipe
    from bon_search.search import Scored
    from pipelines import Particles


class Run:
    """One search under way: iterate over it for finished candidates, read `result` at any time.

    A used-up budget ends the iteration quietly. If the reward fails on finished pictures, these are given out
    before the error goes on, without a score (NaN) where it gave none, so that nothing made is lost.

    Args:
        search: Yields populations; those at step `recipe.steps` are finished.
        critic: The critic that the search uses; holds the pictures.
        ledger: Where both enter what they spend.
        recipe: How the run can be repeated.
        evaluations_per_nfe: Asked at the end for the network evaluations that one NFE took (2 under guidance).

    Attributes:
        on_nfe: Called with the number of NFE just done; set it to the `update` of a progress bar.
    """

    def __init__(
        self,
        search: Iterator[Scored],
        critic: PictureCritic,
        ledger: Ledger,
        recipe: Recipe,
        evaluations_per_nfe: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.recipe = recipe
        self.on_nfe: Callable[[int], object] = lambda nfe: None
        self._ledger = ledger
        self._evaluations_per_nfe = evaluations_per_nfe
        self._search = search
        self._critic = critic
        self._finished: list[Candidate] = []
        self._shown: Particles | None = None

    def __iter__(self) -> Iterator[Candidate]:
        for candidate in self._candidates():
            self._finished.append(candidate)
            yield candidate

    @property
    def result(self) -> SearchResult:
        """What is finished so far, ranked."""
        return SearchResult(ranked(self._finished), self._ledger.spent, self.recipe, self._evaluations_per_nfe())

    def _candidates(self) -> Iterator[Candidate]:
        try:
            for scored in self._search:
                self._shown = scored.particles
                if self._shown.step == self.recipe.steps:
                    images = self._critic.images(self._shown)
                    yield from _pair(self._shown, images, scored.scores.tolist())
        except BudgetExceeded:
            yield from self._unscored()
        except (Exception, KeyboardInterrupt):
            yield from self._unscored()
            raise

    def _unscored(self) -> Iterator[Candidate]:
        """Finished pictures on which the reward failed, with the scores that it gave to some of them."""
        last, scores = self._critic.last_look, self._critic.last_scores
        if last is not None and last[0] is not self._shown and last[0].step == self.recipe.steps:
            given = [math.nan] * len(last[0]) if scores is None else scores.tolist()
            yield from _pair(last[0], last[1], [score if math.isfinite(score) else math.nan for score in given])


def _pair(particles: Particles, images: Tensor, scores: list[float]) -> Iterator[Candidate]:
    for image, stream, score in zip(images, particles.streams, scores, strict=True):
        frames = image if image.ndim == 4 else image[None]
        yield Candidate(tuple(to_pil(frame) for frame in frames), stream, score)


def to_pil(image: Tensor) -> Image.Image:
    """A picture (3, H, W) in [0, 1] as PIL, rounded to 8 bits as diffusers rounds it."""
    from PIL import Image

    return Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().cpu().numpy())
