"""Evolutionary search: the better candidates have mutated children, of their noise first and of later states after.

The first generation are independent candidates. Each later one has an evolution step: parents are drawn by tournament
from the last generation and the elite, and their states at that step are mutated and denoised to the end. At step 0 a
mutation moves the noise to a neighbour (`bon_search.neighbours`). Later it diffuses the state back by the forward
kernel, which keeps each noise level's law, and its cost is the steps to make again; to add noise without going back
would leave that law. The elite, the best of all so far, is kept as it is and not evaluated again.

References:
    He et al., "Scaling Image and Video Generation via Test-Time Evolutionary Search", 2025 (arXiv 2505.17618).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from bon_search.checks import check_absolute, check_count, check_share
from bon_search.errors import SearchError
from bon_search.ledger import Cost
from bon_search.neighbours import neighbours
from bon_search.portions import portions
from bon_search.search import Critic, Scored, seeds
from bon_search.searches.halving import best
from pipelines.noise import derive
from pipelines.particles import EMPTY, Particles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from pipelines.sampler import Sampler

__references__ = ("arXiv:2505.17618",)
__cost__ = "at most n·K NFE, about 1.4·n rewards"

TIMES = (0.0, 0.4, 0.6, 0.8)  # of the paper
FIRST = 0.4  # share of the NFE for the first generation; of the paper


def evolutionary(  # noqa: PLR0913  the dimensions of the method
    sampler: Sampler,
    critic: Critic,
    *,
    n: int,
    times: Sequence[float] | float = TIMES,
    mutation: float = 0.4,
    depth: float = 0.1,
    elites: int = 3,
    tournament: int = 3,
    seed: int = 0,
) -> Iterator[Scored]:
    """Breed candidates: tournament, mutation of noises and of later states, elite; for the NFE of n candidates.

    Args:
        sampler: Any.
        critic: Absolute: generations are compared.
        n: How many candidates' NFE to spend. The first generation has 40 % of n candidates, from the seeds seed,
            seed + 1, …; the rest pays for about as many children in each later one.
        times: The evolution step of each later generation as a share of the steps, from 0 to 1, ascending; a number
            is that of a single one.
        mutation: Distance of a mutated noise, above 0 and up to 1, for generations at step 0; 0.2 in the paper.
        depth: Share of the steps that a later state is diffused back.
        elites: How many of the best so far are always among those who may be parents.
        tournament: Of so many drawn at random the best is a parent; 1 draws parents blindly.
        seed: As above.

    Yields:
        The finished candidates of each generation.

    Raises:
        SearchError: An argument out of range, a critic that only ranks, a score that is NaN.
    """
    check_absolute(critic, "evolutionary")
    check_share("mutation", mutation)
    check_count("elites", elites)
    check_count("tournament", tournament)
    first, generations = _plan(n, sampler.steps, times, depth)
    return _Evolution(sampler, critic, seeds(seed, n), generations, mutation, elites, tournament).run(first)


def cost(
    n: int,
    steps: int,
    times: Sequence[float] | float = TIMES,
    mutation: float = 0.4,
    depth: float = 0.1,
    elites: int = 3,
    tournament: int = 3,
) -> Cost:
    """What `evolutionary` spends, exactly; at most n·steps NFE."""
    first, generations = _plan(n, steps, times, depth)
    children = first + sum(one.children for one in generations)
    nfe = first * steps + sum(one.children * (steps - one.begin) for one in generations)
    return Cost(nfe=nfe, rewards=children, decodes=children)


@dataclass(frozen=True)
class _Generation:
    """Children of states at the step `at`, which denoise from the step `begin`; both are 0 for mutated noises."""

    at: int
    begin: int
    children: int = 0


@dataclass(frozen=True)
class _Population:
    """Who may be a parent: M scores, and the states at each evolution step that is still to come."""

    scores: Tensor
    states: Mapping[int, Particles]

    def select(self, order: Sequence[int]) -> _Population:
        return _Population(self.scores[order], {step: state[order] for step, state in self.states.items()})

    def joined(self, other: _Population) -> _Population:
        """These and the others, with the states that both have."""
        both = [step for step in self.states if step in other.states]
        states = {step: Particles.cat([self.states[step], other.states[step]]) for step in both}
        return _Population(torch.cat([self.scores, other.scores]), states)


@dataclass(frozen=True)
class _Evolution:
    """The search with its settings checked; the arguments of `evolutionary`."""

    sampler: Sampler
    critic: Critic
    seeds: Sequence[int]
    generations: tuple[_Generation, ...]
    mutation: float
    elites: int
    tournament: int

    def run(self, first: int) -> Iterator[Scored]:
        population, look = self._grow(self.sampler.init(self.seeds[:first]))
        yield look
        elite = self._elite(population)
        for number, generation in enumerate(self.generations):
            parents = self._parents(population, number, generation.children)
            children, look = self._grow(self._mutate(population.states[generation.at], parents, generation, number))
            yield look
            population = elite.joined(children)
            elite = self._elite(population)

    def _grow(self, particles: Particles) -> tuple[_Population, Scored]:
        """Denoise to the end, with a halt at each evolution step on the way."""
        states = {}
        for step in sorted({one.at for one in self.generations if one.at >= particles.step}):
            particles = self.sampler.advance(particles, to=step)
            states[step] = replace(particles, x0=None, memory=EMPTY)
        particles = self.sampler.advance(particles, to=self.sampler.steps)
        scores = self.critic(particles)
        return _Population(scores, states), Scored(particles, scores)

    def _elite(self, population: _Population) -> _Population:
        return population.select(best(population.scores, self.elites))

    def _parents(self, population: _Population, number: int, children: int) -> list[int]:
        """Places of the winners of as many tournaments as there are children."""
        size = len(population.scores)

        def winner(child: int) -> int:
            key = ("evolutionary", "tournament", self.seeds[0], number, child)
            drawn = [derive(*key, entrant) % size for entrant in range(self.tournament)]
            return drawn[best(population.scores[drawn], 1)[0]]

        return [winner(child) for child in range(children)]

    def _mutate(self, states: Particles, parents: list[int], generation: _Generation, number: int) -> Particles:
        key = ("evolutionary", self.seeds[0], number)
        if generation.begin == generation.at:
            keys = [derive(*key, child) for child in range(len(parents))]
            return neighbours(self.sampler, states[parents], [self.mutation] * len(keys), keys)
        return self.sampler.renoise(states.fork(parents), to=generation.begin, seed=derive(*key))


def _plan(n: int, steps: int, times: Sequence[float] | float, depth: float) -> tuple[int, tuple[_Generation, ...]]:
    """The size of the first generation, and the later ones for what then is left of n·K NFE."""
    check_count("n", n)
    check_share("depth", depth)
    times = (times,) if isinstance(times, int | float) else times
    for time in times:
        check_share("times", time, zero=True)
    if list(times) != sorted(times):
        raise SearchError(f"The times of generations go forward, but these are {list(times)}; put them in order.")
    later = [_generation(time, steps, depth) for time in times]
    first = max(1, round(FIRST * n)) if later else n
    counts = portions((n - first) * steps, [steps - one.begin for one in later])
    return first, tuple(replace(one, children=k) for one, k in zip(later, counts, strict=True) if k)


def _generation(time: float, steps: int, depth: float) -> _Generation:
    """A state before step 2 has nothing behind it but noise, so it is the noise that mutates."""
    at = round(time * steps)
    return _Generation(at, max(1, at - max(1, round(depth * steps)))) if at >= 2 else _Generation(0, 0)
