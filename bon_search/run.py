"""Drain a search under a budget: scored populations come in, finished candidates go out as they are made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bon_search.errors import BudgetExceeded
from bon_search.ledger import Cost
from bon_search.leftover import finish_best
from bon_search.result import Candidate, SearchResult, ranked
from bon_search.search import Scored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL import Image
    from torch import Tensor

    from bon_search.critic import Look, PictureCritic
    from bon_search.ledger import Ledger
    from bon_search.result import Recipe
    from pipelines import Particles


class Run:
    """One search under way: iterate over it for finished candidates, read `result` at any time.

    A budget that refuses the search its next move ends it quietly: what is left of it finishes as many as it can of the
    best particles at hand. If the reward fails on finished pictures, these are given out before the error goes on,
    without a score (NaN) where it gave none, so that nothing made is lost. A candidate that one search hands on to the
    next, which finishes it again, is given out once.

    Args:
        search: Yields populations; those at step `recipe.steps` are finished.
        critic: The critic that the search uses; holds the pictures.
        ledger: Where both enter what they spend.
        recipe: How the run can be repeated.
        evaluations_per_nfe: Asked at the end for the network evaluations that one NFE took (2 under guidance).
        planned: What the search will spend, or spend at most.

    Attributes:
        recipe: As given.
        planned: As given.
        only: Set to a seed to be given the candidate of that seed alone.
        on_nfe: Called with the number of NFE just done; set it to the `update` of a progress bar.
        on_look: Called with each population that the reward has just judged: finished pictures, and the drafts and
            previews by which the search finds its way. Watching costs nothing: the pictures were made for the reward.
    """

    def __init__(
        self,
        search: Iterator[Scored],
        critic: PictureCritic,
        ledger: Ledger,
        recipe: Recipe,
        evaluations_per_nfe: Callable[[], float] = lambda: 1.0,
        planned: Cost | None = None,
    ) -> None:
        self.recipe = recipe
        self.planned = planned or Cost.at_most()
        self.only: int | None = None
        self.on_nfe: Callable[[int], object] = lambda nfe: None
        self.on_look: Callable[[Look], object] = lambda look: None
        self._ledger = ledger
        self._evaluations_per_nfe = evaluations_per_nfe
        self._search = search
        self._critic = critic
        self._finished: list[Candidate] = []
        self._shown: Scored | None = None
        self._report = ""

    def __iter__(self) -> Iterator[Candidate]:
        names = set[int]()
        for candidate in self._candidates():
            if self.only in (None, candidate.seed) and candidate.seed not in names:
                names.add(candidate.seed)
                self._finished.append(candidate)
                yield candidate

    @property
    def result(self) -> SearchResult:
        """What is finished so far, ranked."""
        spent, evaluations = self._ledger.spent, self._evaluations_per_nfe()
        handovers = self._ledger.handovers
        return SearchResult(ranked(self._finished), spent, self.recipe, evaluations, self._report, handovers=handovers)

    def _candidates(self) -> Iterator[Candidate]:
        try:
            for scored in self._looks():
                self._shown = scored
                if scored.particles.step == self.recipe.steps:
                    yield from self._given(scored)
        except BudgetExceeded:
            yield from self._unscored()
        except (Exception, KeyboardInterrupt):
            yield from self._unscored()
            raise

    def _looks(self) -> Iterator[Scored]:
        """The search, and what becomes of the rest of a budget that ends it."""
        try:
            yield from self._search
        except BudgetExceeded as refused:
            if refused.particles is None:
                raise
            critic = self._critic
            yield from finish_best(critic.sampler, critic, self._ledger, refused.particles, self._shown)

    def _given(self, scored: Scored) -> Iterator[Candidate]:
        ranking = self._critic.last_ranking
        seeds = [f"seed {stream}" for stream in scored.particles.streams]
        self._report = ranking.report(seeds) if ranking is not None and ranking.cycle else ""
        return _pair(scored.particles, self._critic.images(scored.particles), scored.scores.tolist())

    def _unscored(self) -> Iterator[Candidate]:
        """Finished pictures on which the reward failed, with the scores that it gave to some of them."""
        last, scores = self._critic.last_look, self._critic.last_scores
        shown = self._shown.particles if self._shown else None
        if last is not None and last[0] is not shown and last[0].step == self.recipe.steps:
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
