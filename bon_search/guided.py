"""Particle filters whose proposals follow the reward's gradient: what `das_gradient` and `psi` share.

At each step k that draws noise of scale s, but the last, which ends in a candidate, the estimate x0 of a state x_k is
judged, with the gradient g of its score, and the noise z of the step is pushed towards better ones:

    x_{k+1} = mean(x_k) + s·(z + d),   d = s·λ_k·g,   z ~ N(0, I)

which is a draw of N(mean + s²·λ_k·g, s²·I) instead of N(mean, s²·I), and weighs p / q = exp(−z·d − |d|²/2). The weights
further take in λ_k·r_k − λ_{k−1}·r_{k−1}, and at the end λ·r − λ_{k}·r_{k}: so the weighted population stands for
p(x)·exp(λ·r(x)) / Z, whatever the pushes and strengths on the way. So d may be shortened: it is never longer than noise
usually is, or a steep reward would throw particles out of all that the model knows.

A step is judged by the very evaluation that takes it, so each costs one NFE and one backward pass per particle. When a
population is resampled all that a particle owns goes with it: the state after the step, score, gradient. Copies have
taken the step already, with one and the same noise, which is exchanged for noise of their own.

Pushed particles are no more what their seed alone makes, so they get new streams.

References:
    Kim, Kim and Park, "Test-time Alignment of Diffusion Models without Reward Over-optimization", 2025
    (arXiv 2501.05803).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from bon_search.errors import SearchError
from bon_search.gradients import look, wide
from bon_search.potentials import TEMPERINGS, Weights
from bon_search.resampling import ssp
from bon_search.weighted import SmcScored, checked_scores
from pipelines.noise import derive, step_noise
from pipelines.particles import Particles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from bon_search.gradients import Gradients
    from bon_search.potentials import Scale, Tempering
    from bon_search.search import Critic
    from pipelines.sampler import DifferentiableSampler


@dataclass(frozen=True, eq=False)
class Look:
    """N particles that have just taken a step, and how their state before it was judged.

    Attributes:
        particles: At step k + 1; their noise is that of (stream, k).
        scores: (N,) of the estimates made at step k, float64 on the CPU.
        slopes: (N, ...) their gradients with respect to the latents at step k.
        scale: Of the noise in that step.
    """

    particles: Particles
    scores: Tensor
    slopes: Tensor
    scale: float

    @property
    def noise(self) -> Tensor:
        """What the step drew, (N, ...)."""
        latents = self.particles.latents
        return step_noise(self.particles.streams, self.particles.step - 1, latents.shape[1:]).to(self.slopes)

    def __getitem__(self, rows: Sequence[int] | Tensor) -> Look:
        """Select and reorder, everything."""
        order = torch.as_tensor(rows)
        slopes = self.slopes[order.to(self.slopes.device)]
        return replace(self, particles=self.particles[order], scores=self.scores[order], slopes=slopes)

    def fork(self, ancestors: Sequence[int] | Tensor) -> Look:
        """Select like `[ancestors]`; copies get streams of their own and, in exchange, the noise of these."""
        chosen = self[ancestors]
        forked = replace(chosen, particles=self.particles.fork(ancestors))
        return forked.moved(forked.noise - chosen.noise)

    def moved(self, shift: Tensor) -> Look:
        """The same, had the step's noise been another by `shift` (N, ...)."""
        latents = self.particles.latents.to(wide(self.particles.latents)) + self.scale * shift
        return replace(self, particles=replace(self.particles, latents=latents.to(self.particles.latents.dtype)))

    @staticmethod
    def cat(looks: Sequence[Look]) -> Look:
        """Join looks at the same step."""
        return Look(
            Particles.cat([one.particles for one in looks]),
            torch.cat([one.scores for one in looks]),
            torch.cat([one.slopes for one in looks]),
            looks[0].scale,
        )


@dataclass(frozen=True, eq=False)
class _State:
    """A weighted population between two looks.

    Attributes:
        particles: N of them.
        weights: Since the last resampling.
        counted: (N,) λ_k·r_k of the last step judged, which the weights hold; 0 before the first.
        full: λ, once it is known.
        share: λ_k/λ.
        ancestors: (N,) in the population of the last look; None where all are their own.
    """

    particles: Particles
    weights: Weights
    counted: Tensor
    full: float | None = None
    share: float = 0.0
    ancestors: Tensor | None = None

    def scored(self, particles: Particles, scores: Tensor) -> SmcScored:
        """What a search yields of it."""
        strength, weights = self.share * (self.full or 0.0), self.weights
        temperature = 1 / strength if strength else math.inf
        return SmcScored(
            particles, scores, weights.logs, weights.log_evidence, temperature, weights.ess, self.ancestors
        )


@dataclass(frozen=True, eq=False)
class Guided:
    """The filter with its settings checked.

    Attributes:
        name: Of the search; streams derive from it.
        sampler: Takes the steps without a gradient.
        critic: Judges finished particles.
        using: Where gradients flow.
        scale: The strength; if it must be measured, at the first look at which scores differ.
        tempering: How much of it counts on the way.
        threshold: Resample where the ESS is at most threshold·n.
        first: The first step that is judged.
        seed: Of the run.
        batch_size: Particles whose gradients are taken at a time; all when None.
    """

    name: str
    sampler: DifferentiableSampler
    critic: Critic
    using: Gradients
    scale: Scale
    tempering: Tempering
    threshold: float
    first: int
    seed: int
    batch_size: int | None

    def look(self, particles: Particles) -> Look:
        """Take a step with a gradient; 1 NFE and 1 backward pass per particle."""
        moved, scores, slopes = look(self.using, particles, self.batch_size)
        return Look(moved, checked_scores(scores, moved), slopes, self.sampler.noise_scale(particles.step))

    def from_noise(self, particles: Particles) -> Iterator[SmcScored]:
        """Steer a population of pure noise."""
        n = len(particles)
        return self._run(_State(particles, Weights.equal(n), torch.zeros(n, dtype=torch.float64)))

    def from_look(self, seen: Look, full: float) -> Iterator[SmcScored]:
        """Steer a population that was judged at step 0 and drawn from N(0, I)·exp(full·r); its evidence is unknown."""
        weights = replace(Weights.equal(len(seen.scores)), gathered=math.nan)
        return self._run(self._pushed(seen, _State(seen.particles, weights, 0 * seen.scores, full, share=1.0)))

    def _run(self, state: _State) -> Iterator[SmcScored]:
        for step in range(max(self.first, state.particles.step), self.sampler.steps - 1):
            if not self.sampler.noise_scale(step):
                continue
            seen = self.look(self.sampler.advance(state.particles, to=step))
            state = self._weighed(state, seen, step / self.sampler.steps)
            yield state.scored(seen.particles, seen.scores)
            state = self._pushed(*self._resampled(seen, state))
        end = self.sampler.advance(state.particles, to=self.sampler.steps)
        scores = self.critic(end)
        judged = checked_scores(scores, end)
        full = state.full or self.scale.full(judged) or 0.0
        weights = state.weights.times(full * judged - state.counted)
        yield replace(state, weights=weights, full=full, share=1.0).scored(end, scores)

    def _weighed(self, state: _State, seen: Look, progress: float) -> _State:
        """Take the scores of a look into the weights, at the strength that the tempering chooses."""
        full, wanted = state.full or self.scale.full(seen.scores), self.threshold * len(seen.scores)

        def at(share: float) -> _State:
            weights = state.weights.times(share * (full or 0.0) * seen.scores - state.counted)
            return replace(state, weights=weights, full=full, share=share)

        return at(self.tempering(progress, state.share, lambda share: at(share).weights.ess, wanted))

    def _resampled(self, seen: Look, state: _State) -> tuple[Look, _State]:
        n = len(seen.scores)
        if state.weights.ess > self.threshold * n * (1 + 1e-9):
            return seen, replace(state, ancestors=None)
        ancestors = ssp(state.weights.logs, n, derive(self.name, "resample", self.seed, seen.particles.step))
        return seen.fork(ancestors), replace(state, weights=state.weights.resampled(), ancestors=ancestors)

    def _pushed(self, seen: Look, state: _State) -> _State:
        """Push the noise of the step towards better scores, and weigh what that makes of the proposal."""
        strength = state.share * (state.full or 0.0)
        state = replace(state, counted=strength * seen.scores)
        if not strength:
            return replace(state, particles=seen.particles)
        push = bounded(seen.scale * strength * seen.slopes)  # (N, ...)
        ratio = -(seen.noise * push + 0.5 * push.square()).flatten(1).sum(dim=1)  # log p/q, (N,)
        moved = seen.moved(push).particles
        streams = tuple(derive(self.name, "pushed", stream, moved.step) for stream in moved.streams)
        weights = state.weights.times(ratio.to("cpu", torch.float64))
        return replace(state, particles=replace(moved, streams=streams), weights=weights)


def bounded(push: Tensor) -> Tensor:
    """Pushes (N, ...) of d numbers each, shortened to the length sqrt(d) of standard normal noise where longer."""
    lengths: Tensor = torch.linalg.vector_norm(push, dim=tuple(range(1, push.ndim)), keepdim=True)
    longest = math.sqrt(push[0].numel())
    return push * (longest / lengths.clamp(min=longest))


def tempering_of(name: str) -> Tempering:
    """The tempering of that name.

    Raises:
        SearchError: There is none.
    """
    if name not in TEMPERINGS:
        raise SearchError(f"The tempering {name!r} is unknown; choose one of {', '.join(TEMPERINGS)}.")
    return TEMPERINGS[name]


def check_noise(sampler: DifferentiableSampler, search: str, steps: Sequence[int]) -> None:
    """Refuse a sampler that draws no noise in any of these steps, where a search is to push it.

    Raises:
        SearchError: It draws none.
        UnsupportedScheduler: A scheduler draws noise of its own and does not say how much.
    """
    scales = [sampler.noise_scale(step) for step in steps]
    if not any(scales):
        raise SearchError(
            f"{search} pushes the fresh noise of the steps, and these draw none; give the sampler an eta above 0 and "
            "at least 2 steps, or climb with reno or dno."
        )
