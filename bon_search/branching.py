"""Children of a particle: who may have them, when to choose among them, and the loop that code and beam share.

What a verb of the sampler allows decides the cost. The estimate x0 at step k was made from the state at k − 1, which
copies made at k − 1 share: they part in the step to k, and can be told apart at k + 1. So of copies made at step k the
first that can be chosen by score are at k + 2, and a choice at every second step costs one NFE per copy and step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bon_search.checks import check_count, check_share
from bon_search.errors import SearchError
from bon_search.search import Critic, Scored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from pipelines.sampler import Sampler

START = 0.2  # share of the steps before which previews say too little to choose by
LEAST = 2  # steps from one choice to the next


def check_stochastic(sampler: Sampler, search: str) -> None:
    """Refuse a sampler whose copies stay equal, before anything is spent.

    Raises:
        SearchError: The sampler says that it is not stochastic.
    """
    if not getattr(sampler, "stochastic", True):
        raise SearchError(
            f"{search} chooses among children that differ by the noise of a step, and a deterministic solver adds "
            "none; give the sampler fresh noise (eta above 0), or use bfs, dfs, halving or best_of_n."
        )


def noise_ends(sampler: Sampler) -> int:
    """The step from which on copies no longer part: K, or less if the sampler knows which steps draw noise."""
    drawn: range | None = getattr(sampler, "stochastic_steps", None)
    return sampler.steps if drawn is None else drawn.stop


def choices(steps: int, every: int, start: float) -> range:
    """The steps 1 … K − 2 at which to choose: the first by `start`, then each `every` later.

    Copies made at K − 1 are not worth their price, since the last step of most solvers adds no noise.

    Raises:
        SearchError: `every` is no whole number from 2 on, or `start` is no share.
    """
    check_count("every", every)
    if every < LEAST:
        raise SearchError(
            f"every = {every} would choose among children with one and the same estimate, since a preview is one step "
            "old; choose at every second step or less often, or use svdd."
        )
    check_share("start", start, zero=True)
    return range(max(1, round(start * steps)), steps - 1, every)


def first_look(steps: int, start: float) -> int:
    """The first step at which to look for a choice by x0 of the states at start·K.

    Raises:
        SearchError: `start` is no share.
    """
    check_share("start", start, zero=True)
    return min(steps, 1 + round(start * steps))


def branch(
    sampler: Sampler,
    critic: Critic,
    starts: Sequence[int],
    looks: Sequence[int],
    ancestors: Callable[[Tensor], Sequence[int]],
) -> Iterator[Scored]:
    """Advance a population from look to look, and at each replace it by copies of whom `ancestors` names.

    From where no more noise is drawn, the chosen ones go on alone.

    Args:
        sampler: Stochastic.
        critic: Scores the n particles of a look.
        starts: (n,) seeds.
        looks: Ascending steps below K.
        ancestors: (n,) scores to the (n,) places of those whose copies go on.

    Yields:
        The population at each look, and at last the finished one.
    """
    particles = sampler.init(starts)
    for step in looks:
        particles = sampler.advance(particles, to=step)
        scores = critic(particles)
        yield Scored(particles, scores)
        chosen = ancestors(scores)
        if step >= noise_ends(sampler):
            particles = particles[sorted(set(chosen))]
            break
        particles = particles.fork(chosen)
    particles = sampler.advance(particles, to=sampler.steps)
    yield Scored(particles, critic(particles))
