"""Pruned best-of-N: start many candidates, end the worse ones early by the score of their previews.

It works on deterministic solvers, so it loses no picture quality, and it finds the winner of best-of-N at part of the
cost as far as previews rank candidates as the finished pictures would. How far that is depends on model and reward:
`bon_search.calibrate` measures it and writes the schedule that suits.

References:
    Karnin, Koren and Somekh, "Almost Optimal Exploration in Multi-Armed Bandits", 2013: successive halving.
    "TTSnap: Test-Time Scaling of Diffusion Models via Noise-Aware Pruning", 2025 (arXiv 2511.22242).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bon_search.errors import SearchError
from bon_search.ledger import Cost
from bon_search.pruning import DEFAULT, Schedule
from bon_search.search import Critic, Scored, seeds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from pipelines.sampler import Sampler

__references__ = ("arXiv:2511.22242",)
__cost__ = "n·K NFE less what the ended ones save, a score at each look and at the end"


def halving(
    sampler: Sampler, critic: Critic, *, n: int, schedule: Schedule | str | Path | None = None, seed: int = 0
) -> Iterator[Scored]:
    """Start n candidates, keep the best at each look, finish the rest.

    Args:
        sampler: Any; a deterministic one is best.
        critic: Need only rank the candidates of one look.
        n: Candidates to start; candidate k starts from seed + k.
        schedule: A schedule, the file of one, or its name (`pruning.published`); half of the candidates at 35 % of the
            steps and half of the rest at 60 % when None.
        seed: As above.

    Yields:
        All candidates alive at each look, and at last the finished ones.

    Raises:
        SearchError: n or seed out of range, a schedule that cannot be read, a score that is NaN.
    """
    return _run(sampler, critic, seeds(seed, n), _schedule(schedule))


def cost(n: int, steps: int, schedule: Schedule | str | Path | None = None) -> Cost:
    """What `halving` spends, exactly."""
    return _schedule(schedule).cost(n, steps)


def leaves(n: int, steps: int, schedule: Schedule | str | Path | None = None) -> int:
    """The candidates that it finishes, undisturbed from their noise on."""
    looks = _schedule(schedule).looks(n, steps)
    return looks[-1].kept if looks else n


def best(scores: Tensor, count: int) -> list[int]:
    """The places of the `count` highest scores (N,), in ascending order; ties go to the lowest place.

    Raises:
        SearchError: A score is NaN.
    """
    values = scores.tolist()
    if any(value != value for value in values):
        raise SearchError("A candidate has the score NaN, so they cannot be ranked; look for the fault in the reward.")
    return sorted(sorted(range(len(values)), key=lambda k: -values[k])[:count])


def _run(sampler: Sampler, critic: Critic, starts: Sequence[int], schedule: Schedule) -> Iterator[Scored]:
    particles = sampler.init(starts)
    for look in schedule.looks(len(starts), sampler.steps):
        particles = sampler.advance(particles, to=look.step)
        scores = critic(particles)
        yield Scored(particles, scores)
        particles = particles[best(scores, look.kept)]
    particles = sampler.advance(particles, to=sampler.steps)
    yield Scored(particles, critic(particles))


def _schedule(schedule: Schedule | str | Path | None) -> Schedule:
    if schedule is None:
        return DEFAULT
    return schedule if isinstance(schedule, Schedule) else Schedule.load(schedule)
