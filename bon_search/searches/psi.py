"""Ψ-Sampler: begin where the reward already is likely to be high, then steer.

The initial noise z is drawn from N(0, I)·exp(λ·r(x0(z))), where x0(z) is the model's first estimate, by Markov chains
whose moves follow the gradient g of r and keep N(0, I) but for it (pCNL): with ρ = (1 − ε/4) / (1 + ε/4) and
β = sqrt(1 − ρ²),

    z' = ρ·z + β·(ξ + d),   d = (sqrt(ε)/2)·λ·g(z),   ξ ~ N(0, I),

accepted by the rule of Metropolis and Hastings, where d is no longer than noise usually is. Particles taken from the
second half of the chains go on as in `das_gradient`, at full strength from the first step on.

λ = strength / deviation, and the deviation, if it is not given, is that of a few finished candidates: the first
estimates differ too little to tell it. The chains start from the noise of these candidates.

The work of n candidates, whatever n and K, is divided as in the paper: about half of it explores, in n / 4 chains, and
the other half steers. The paper's 50 moves are what that makes of its 25 steps; a run of few steps or candidates has as
many moves as it can pay for, and below 4 candidates, where a deviation cannot be told, it is best-of-n. It suits models
whose first estimate tells something of the picture, such as those of few steps: elsewhere exploring finds nothing.

References:
    Yoon et al., "Psi-Sampler: Initial Particle Sampling for SMC-Based Inference-Time Reward Alignment in Score Models",
    2025 (arXiv 2506.01320): 50 moves with ε = 0.5, about as many NFE as the steering takes.
    Cotter, Roberts, Stuart and White, "MCMC Methods for Functions", 2013 (arXiv 1202.0709).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from bon_search.checks import check_absolute, check_count, check_share
from bon_search.errors import SearchError
from bon_search.gradients import Gradients, wide
from bon_search.guided import Guided, Look, bounded, check_noise
from bon_search.ledger import Cost
from bon_search.potentials import Scale, constant
from bon_search.search import Critic, Scored, seeds
from bon_search.weighted import checked_scores
from pipelines.noise import derive
from pipelines.particles import Particles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from pipelines.sampler import DifferentiableSampler

__references__ = ("arXiv:2506.01320", "arXiv:2501.05803")
__cost__ = (
    "at most n·K NFE: candidates that tell the deviation, looks in n / 4 chains, steering of about n / 2 particles; "
    "a score and a backward pass for each look"
)
__branches__ = True

FEWEST = 4  # candidates of which 2 can tell a deviation and the rest make use of it


def psi(  # noqa: PLR0913  the dimensions of the method
    sampler: DifferentiableSampler,
    critic: Critic,
    *,
    n: int,
    exploration: float = 0.5,
    chains: int | None = None,
    moves: int | None = None,
    move_size: float = 0.5,
    strength: float = 3.0,
    deviation: float | None = None,
    temperature: float | None = None,
    threshold: float = 0.5,
    seed: int = 0,
    batch_size: int | None = None,
) -> Iterator[Scored]:
    """Draw the initial noise by its reward with gradient moves, then steer particles from it as das_gradient does.

    Args:
        sampler: Draws noise in its first step and others, lets gradients flow.
        critic: Absolute and differentiable; scores estimates and finished particles.
        n: Pictures' worth of work, n·K NFE in all.
        exploration: Share of the work that explores the noise, from 0 up to 1.
        chains: That explore it; a quarter of n, and at least the 2 that tell a deviation, when None.
        moves: Of each chain at most, what is left then steers; as many as the work pays for when None. Particles are
            taken from the second half of them.
        move_size: ε, above 0 and up to 1.
        strength: The tilt in nats per deviation of the reward; used when the temperature is None.
        deviation: The reward's standard deviation within the prompt; that of as many finished candidates as there are
            chains when None.
        temperature: Divides the score, in its own units. None: deviation / strength.
        threshold: Resample at a look whose ESS is at most threshold·n; above 0 and up to 1.
        seed: Chain k starts from seed + k; all else derives from it.
        batch_size: Particles whose gradients are taken at a time; all when None.

    Yields:
        The candidates that tell the deviation, the chains before and after each move, the particles at each look, and
        at last the finished ones. Their evidence is unknown (NaN).

    Raises:
        SearchError: An argument out of range, a critic that only ranks or gives no gradient, a deterministic sampler, a
            score or gradient that is not finite.
        UnsupportedScheduler: A scheduler that draws noise of its own; an eta above 0 takes its place.
    """
    check_absolute(critic, "psi")
    work = _work(n, sampler.steps, exploration, chains, moves, measured=deviation is None and temperature is None)
    check_share("move_size", move_size)
    check_share("threshold", threshold)
    using = Gradients.of(sampler, critic)
    check_noise(sampler, "psi", [0])
    guided = Guided(
        name="psi",
        sampler=sampler,
        critic=critic,
        using=using,
        scale=Scale(temperature, strength, deviation),
        tempering=constant,
        threshold=threshold,
        first=0,
        seed=seed,
        batch_size=batch_size,
    )
    seeds(seed, n)
    return _Exploration(guided, work, move_size).run()


def cost(
    n: int,
    steps: int,
    exploration: float = 0.5,
    chains: int | None = None,
    moves: int | None = None,
    deviation: float | None = None,
    temperature: float | None = None,
) -> Cost:
    """What `psi` spends; less where some of the steps but the last draw no noise."""
    work = _work(n, steps, exploration, chains, moves, measured=deviation is None and temperature is None)
    looked = work.chains * work.looks + work.particles * max(0, steps - 2)
    scored = looked + work.pilots + work.particles
    nfe = work.pilots * steps + work.chains * work.looks + work.particles * (steps - 1)
    return Cost(nfe=nfe, rewards=scored, decodes=scored, backwards=looked)


@dataclass(frozen=True)
class _Work:
    """How the work is divided.

    Attributes:
        pilots: Candidates that are finished first.
        chains: That explore; none if the pilots are all there is.
        looks: At each chain, one more than it makes moves.
        particles: That are steered.
    """

    pilots: int
    chains: int = 0
    looks: int = 0
    particles: int = 0


def _work(n: int, steps: int, exploration: float, chains: int | None, moves: int | None, *, measured: bool) -> _Work:
    """Divide n·steps NFE; `measured` if pilots are needed."""
    check_count("n", n)
    check_share("exploration", exploration, zero=True)
    if moves is not None and (isinstance(moves, bool) or not isinstance(moves, int) or moves < 0):
        raise SearchError(f"moves = {moves!r} is out of range; give a whole number, 0 to explore nothing.")
    check_count("chains", 1 if chains is None else chains)
    if measured and n < FEWEST:
        return _Work(pilots=n)
    least = 2 if measured else 1
    count = min(max(least, n // 4) if chains is None else chains, n // 2 if measured else n)
    left = (n - count if measured else n) * steps
    least_steered = min(max(1, round((1 - exploration) * n)), (left - count) // max(1, steps - 1))
    looks = (left - least_steered * (steps - 1)) // count
    looks = looks if moves is None else min(looks, moves + 1)
    steered = (left - count * looks) // (steps - 1) if steps > 1 else least_steered
    return _Work(count if measured else 0, count, looks, steered)


@dataclass(frozen=True, eq=False)
class _Exploration:
    """The chains, with their settings checked; the arguments of `psi`."""

    guided: Guided
    work: _Work
    size: float

    def run(self) -> Iterator[Scored]:
        begun = self.guided.sampler.init(seeds(self.guided.seed, self.work.pilots or self.work.chains))
        full = _given(self.guided.scale)
        if full is None:
            pilots = self.guided.sampler.advance(begun, to=self.guided.sampler.steps)
            scores = self.guided.critic(pilots)
            full = self.guided.scale.full(checked_scores(scores, pilots)) or 0.0
            yield Scored(pilots, scores)
            if not self.work.chains:
                return
            begun = replace(begun, streams=self._keys(move=0))  # whoever goes on is another candidate
        noise = begun.latents.to(wide(begun.latents)) / self.guided.sampler.start_scale
        state, visited = _Chains(noise, self.guided.look(begun)), list[Look]()
        yield Scored(state.seen.particles, state.seen.scores)
        for move in range(1, self.work.looks):
            state = self._moved(state, full, move)
            yield Scored(state.seen.particles, state.seen.scores)
            visited.append(state.seen)
        yield from self.guided.from_look(self._taken(visited or [state.seen]), full)

    def _moved(self, state: _Chains, full: float, move: int) -> _Chains:
        """One move of each chain, made or not."""
        rho = (1 - self.size / 4) / (1 + self.size / 4)
        sampler, beta = self.guided.sampler, math.sqrt(1 - rho**2)
        pull = math.sqrt(self.size) / 2 * full * sampler.start_scale
        keys = self._keys(move)
        fresh, scale = sampler.init(keys).latents.to(state.noise), sampler.start_scale
        before = bounded(pull * state.seen.slopes)
        noise = rho * state.noise + beta * (fresh / scale + before)
        there = _Chains(noise, self.guided.look(_at_start(noise * scale, state.seen.particles, keys)))
        after = bounded(pull * there.seen.slopes)
        forth = _push_ratio(noise - rho * state.noise, beta, before)
        back = _push_ratio(state.noise - rho * noise, beta, after)
        logs = full * (there.seen.scores - state.seen.scores) + back - forth
        uniform = torch.tensor([_uniform(key) for key in keys], dtype=torch.float64)
        return state.replaced(there, uniform.log() < logs)

    def _keys(self, move: int) -> tuple[int, ...]:
        return tuple(derive("psi", "chain", self.guided.seed, chain, move) for chain in range(self.work.chains))

    def _taken(self, visited: list[Look]) -> Look:
        """Particles, spread evenly over the chains and over the second half of their moves; copies part."""
        late = visited[len(visited) // 2 :]
        rounds = math.ceil(self.work.particles / self.work.chains)
        times = [len(late) * (2 * turn + 1) // (2 * rounds) for turn in range(rounds)]
        whole = (rounds - 1) * self.work.chains  # rows of rounds that take all chains; the last may take some
        rest = self.work.particles - whole
        rows = [*range(whole), *(whole + row * self.work.chains // rest for row in range(rest))]
        return Look.cat([late[time] for time in times]).fork(rows)


@dataclass(frozen=True, eq=False)
class _Chains:
    """Where C chains are: their noise (C, ...), standard normal but for the tilt, and how it was judged."""

    noise: Tensor
    seen: Look

    def replaced(self, other: _Chains, accepted: Tensor) -> _Chains:
        """The other's row where it is accepted, (C,) bool."""
        count = len(accepted)
        rows = torch.arange(count) + count * accepted
        both = torch.cat([self.noise, other.noise])
        return _Chains(both[rows.to(both.device)], Look.cat([self.seen, other.seen])[rows])


def _push_ratio(change: Tensor, beta: float, push: Tensor) -> Tensor:
    """Log of the density of a move with a push over that without, (C,); change = β·(ξ + push), each (C, ...)."""
    logs = (change * push / beta - 0.5 * push.square()).flatten(1).sum(dim=1)
    return logs.to("cpu", torch.float64)


def _at_start(latents: Tensor, like: Particles, keys: tuple[int, ...]) -> Particles:
    return Particles(latents.to(like.latents.dtype), 0, keys)


def _uniform(key: int) -> float:
    generator = torch.Generator("cpu").manual_seed(derive("psi", "accept", key))
    return float(torch.rand((), generator=generator, dtype=torch.float64))


def _given(scale: Scale) -> float | None:
    """The strength, if nothing has to be measured for it."""
    known = scale.temperature is not None or scale.deviation is not None
    return scale.full(torch.zeros(1)) if known else None
