"""Epsilon-greedy noise search: at each noise level try other noises around the best one, sometimes a fresh one.

The best of the first candidates at the step `start` goes on alone. From then on each level has n candidates: the
particle as it is, then rounds of proposals around the noise of the best so far. A proposal keeps the signal alpha·x0
and moves the noise, to a neighbour or, with probability epsilon, to a fresh one (`bon_search.neighbours`). Every
candidate is denoised one level further, which gives the preview it is judged by, and the best one is already there.

The particle as it is stays a candidate, so by its preview no level ends worse than the solver alone would; a proposal
has the norm of noise however many rounds led to it, and is denoised from the level that it is at. The paper has 20
rounds of 4 small moves (0.15) at every level from the first.

References:
    Ramesh and Mardani, "Test-Time Scaling of Diffusion Models via Noise Trajectory Search", 2025 (arXiv 2506.03164).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bon_search.checks import check_absolute, check_count, check_share
from bon_search.ledger import Cost
from bon_search.neighbours import neighbours as neighbours_of
from bon_search.search import Critic, Scored, seeds
from bon_search.searches.halving import best
from pipelines.noise import SEED_LIMIT, derive

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from pipelines.particles import Particles
    from pipelines.sampler import Sampler

__references__ = ("arXiv:2506.03164",)
__cost__ = "n·K NFE, n·(1 + (K − start·K) / every) rewards"


def epsilon_greedy(  # noqa: PLR0913  the dimensions of the method
    sampler: Sampler,
    critic: Critic,
    *,
    n: int,
    neighbours: int = 4,
    epsilon: float = 0.4,
    step_size: float = 0.5,
    start: float = 0.25,
    every: int = 1,
    seed: int = 0,
) -> Iterator[Scored]:
    """Search the noise of every level, around the best or afresh; n candidates a level.

    Args:
        sampler: Any; a deterministic one gets its noise from this search.
        critic: Absolute: rounds are compared.
        n: Candidates of each level; the first ones start from seed, seed + 1, …
        neighbours: Proposals of one round, which run as one batch.
        epsilon: Probability that a proposal is a fresh noise, from 0 to 1.
        step_size: Largest distance of the other proposals, above 0 and up to 1; each has its own, evenly up to it.
        start: Share of the steps before which previews say too little to choose by.
        every: Steps from one level to the next. Larger ones decode and score less often, on better previews.
        seed: As above.

    Yields:
        The first candidates, the particle and each round of proposals at each level; those of the last are finished.

    Raises:
        SearchError: An argument out of range, a critic that only ranks, a score that is NaN.
    """
    check_absolute(critic, "epsilon_greedy")
    check_count("neighbours", neighbours)
    check_share("epsilon", epsilon, zero=True)
    check_share("step_size", step_size)
    levels = _levels(sampler.steps, start, every)
    return _Levels(sampler, critic, seeds(seed, n), neighbours, epsilon, step_size).run(levels)


def cost(
    n: int,
    steps: int,
    neighbours: int = 4,
    epsilon: float = 0.4,
    step_size: float = 0.5,
    start: float = 0.25,
    every: int = 1,
) -> Cost:
    """What `epsilon_greedy` spends, exactly: the NFE of n candidates, and n scores for each level."""
    times = n * len(_levels(steps, start, every))
    return Cost(nfe=n * steps, rewards=times, decodes=times)


@dataclass(frozen=True)
class _Best:
    """The best candidate of a level: as it began there, and one level further."""

    begun: Particles
    ended: Particles
    score: float


@dataclass(frozen=True)
class _Levels:
    """The search with its settings checked; the arguments of `epsilon_greedy`."""

    sampler: Sampler
    critic: Critic
    seeds: Sequence[int]
    width: int
    epsilon: float
    step_size: float

    def run(self, levels: Sequence[int]) -> Iterator[Scored]:
        found = yield from self._try(self.sampler.init(self.seeds), levels[0])
        for to in levels[1:]:
            found = yield from self._level(found.ended, to)

    def _level(self, particle: Particles, to: int) -> Generator[Scored, None, _Best]:
        """Candidates from the level of one particle: itself, then proposals."""
        n, top = len(self.seeds), (yield from self._try(particle, to))
        for made in range(1, n, self.width):
            proposals = self._propose(top.begun, range(made, min(made + self.width, n)))
            found = yield from self._try(proposals, to)
            top = found if found.score > top.score else top
        return top

    def _try(self, begun: Particles, to: int) -> Generator[Scored, None, _Best]:
        ended = self.sampler.advance(begun, to=to)
        scores = self.critic(ended)
        yield Scored(ended, scores)
        top = best(scores, 1)
        return _Best(begun[top], ended[top], float(scores[top[0]]))

    def _propose(self, pivot: Particles, places: Sequence[int]) -> Particles:
        keys = [derive("epsilon_greedy", self.seeds[0], pivot.step, place) for place in places]
        return neighbours_of(self.sampler, pivot, [self._size(key) for key in keys], keys)

    def _size(self, key: int) -> float:
        """1, a fresh noise, with probability epsilon; else evenly from (0, step_size]."""
        fresh, share = (1 - derive(name, key) / SEED_LIMIT for name in ("fresh", "size"))
        return 1.0 if fresh <= self.epsilon else share * self.step_size


def _levels(steps: int, start: float, every: int) -> tuple[int, ...]:
    """Where candidates are scored: the step `start`, each `every` steps later, and at last K."""
    check_share("start", start)
    check_count("every", every)
    return (*range(max(1, round(start * steps)), steps, every), steps)
