"""Zero-order search: finish neighbours of the best noise so far, over and over.

A round finishes some neighbours of the pivot, the noise whose candidate is the best of all so far, and moves the pivot
only to a better one. The neighbours are noise as the model expects it (`bon_search.neighbours`), at a distance that
adapts itself: it grows while more than a fifth of the neighbours are better than the pivot and shrinks otherwise
(Rechenberg's rule). A neighbour of size 1 is an independent noise, so the search lies between best-of-N and a hill
climb, and needs no gradient.

The pivot is never evaluated twice, a round without success loses nothing, and all noise is a function of the seed.

References:
    Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps", 2025, section 3
    (arXiv 2501.09732): fixed distance, 2 to 4 neighbours.
    Rechenberg, "Evolutionsstrategie", 1973: one success in five.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bon_search.checks import check_absolute, check_count, check_share
from bon_search.errors import SearchError
from bon_search.ledger import Cost
from bon_search.neighbours import neighbours as neighbours_of
from bon_search.search import Critic, Scored, seeds
from bon_search.searches.halving import best
from pipelines.noise import derive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipelines.particles import Particles
    from pipelines.sampler import Sampler

__references__ = ("arXiv:2501.09732",)
__cost__ = "n·K NFE, n rewards"

SUCCESS = 1 / 5  # share of better neighbours at which the distance stays


def zero_order(
    sampler: Sampler,
    critic: Critic,
    *,
    n: int,
    neighbours: int = 4,
    start: int | None = None,
    step_size: float = 0.5,
    adaptation: float = 1.0,
    seed: int = 0,
) -> Iterator[Scored]:
    """Climb from the best noise to better neighbours; finishes n candidates.

    Args:
        sampler: Any; on one whose steps draw noise of their own, neighbours part more than their distance tells.
        critic: Absolute: rounds are compared.
        n: Candidates finished in all.
        neighbours: Of one round, which run as one batch.
        start: Independent candidates of the first round, from the seeds seed, seed + 1, …; as many as `neighbours`
            when None.
        step_size: Distance s of the first neighbours, above 0 and up to 1; their correlation with the pivot is
            sqrt(1 − s²): 0.87 at 0.5, and the paper's 0.95 at 0.31.
        adaptation: How fast the distance follows the successes: it is multiplied by exp(adaptation·(share of better
            neighbours − 1/5)) a round. 0 keeps it, as in the paper.
        seed: As above.

    Yields:
        The finished candidates of each round.

    Raises:
        SearchError: An argument out of range, a critic that only ranks, a score that is NaN.
    """
    check_absolute(critic, "zero_order")
    check_count("neighbours", neighbours)
    first = _first(n, neighbours, start)
    check_share("step_size", step_size)
    if not 0 <= adaptation < math.inf:
        raise SearchError(f"adaptation = {adaptation} is out of range; give 0 to keep the distance, 1 is usual.")
    return _Climb(sampler, critic, seeds(seed, n), first, neighbours, step_size, adaptation).run()


def cost(
    n: int,
    steps: int,
    neighbours: int = 4,
    start: int | None = None,
    step_size: float = 0.5,
    adaptation: float = 1.0,
) -> Cost:
    """What `zero_order` spends, exactly, whatever the options: that of n candidates."""
    return Cost(nfe=n * steps, rewards=n, decodes=n)


def leaves(n: int, steps: int) -> int:
    """All candidates, undisturbed from their noise on."""
    return n


def takes(n: int, steps: int, neighbours: int = 4, start: int | None = None) -> int:
    """The candidates of the first round, which it takes to the end at once."""
    return _first(n, neighbours, start)


@dataclass(frozen=True)
class _Climb:
    """The search with its settings checked; the arguments of `zero_order`."""

    sampler: Sampler
    critic: Critic
    seeds: Sequence[int]
    first: int
    width: int
    step_size: float
    adaptation: float

    def run(self) -> Iterator[Scored]:
        n, size = len(self.seeds), self.step_size
        begun = self.sampler.init(self.seeds[: self.first])
        look = self._finish(begun)
        yield look
        (top,) = best(look.scores, 1)
        pivot, bar = begun[[top]], float(look.scores[top])
        for made in range(self.first, n, self.width):
            places = range(made, min(made + self.width, n))
            keys = [derive("zero_order", self.seeds[0], place) for place in places]
            begun = neighbours_of(self.sampler, pivot, [size] * len(keys), keys)
            look = self._finish(begun)
            yield look
            (top,) = best(look.scores, 1)
            share = float((look.scores > bar).double().mean())
            size = min(1.0, size * math.exp(self.adaptation * (share - SUCCESS)))
            if share > 0:
                pivot, bar = begun[[top]], float(look.scores[top])

    def _finish(self, begun: Particles) -> Scored:
        ended = self.sampler.advance(begun, to=self.sampler.steps)
        return Scored(ended, self.critic(ended))


def _first(n: int, neighbours: int, start: int | None) -> int:
    """Candidates of the first round."""
    first = neighbours if start is None else start
    check_count("start", first)
    return min(first, n)
