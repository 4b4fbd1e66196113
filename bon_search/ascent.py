"""Gradient ascent on the noise of one candidate: the loop that `reno` and `dno` share.

    maximise  strength·r(x(z)) + prior(z)

From some independent candidates the best goes on, and each iterate is finished, scored and given out, so that the best
of all is kept by whoever ranks them, and nothing but its picture is kept of it. Of each evaluation but the last one the
gradient is taken, and none is evaluated twice. Noise is moved in float32 at least, whatever the model's format.

What is moved is the noise of the start and, on request, that of later steps. The noise of all other steps is held: an
iterate differs from the one before by its move alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from bon_search.errors import BudgetExceeded, SearchError
from bon_search.gradients import Gradients, gradients, wide
from bon_search.ledger import Cost
from bon_search.search import Scored
from bon_search.searches.halving import best
from bon_search.weighted import checked_scores
from pipelines.noise import derive, step_noise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from bon_search.potentials import Scale
    from pipelines.particles import Particles
    from pipelines.sampler import DifferentiableSampler

Prior = Callable[["Sequence[Tensor]", int], "Tensor"]
"""(noise of the start and of each moved step, each (1, ...); iterate) -> log plausibility, ()."""


@dataclass(frozen=True, eq=False)
class Ascent:
    """The search with its settings checked.

    Attributes:
        name: Of the search; streams derive from it.
        sampler: Makes the noise.
        using: Where gradients flow.
        seeds: Of n candidates.
        first: How many of them start independently.
        scale: The strength.
        prior: Of the noise.
        optimiser: Made once for the tensors that it moves.
        clip: (numbers moved) -> longest gradient of the objective.
        steps: Whose noise is moved too.
    """

    name: str
    sampler: DifferentiableSampler
    using: Gradients
    seeds: Sequence[int]
    first: int
    scale: Scale
    prior: Prior
    optimiser: Callable[[Sequence[Tensor]], Optimizer]
    clip: Callable[[int], float]
    steps: Sequence[int] = ()

    def __post_init__(self) -> None:
        measured = self.scale.temperature is None and self.scale.deviation is None
        if measured and self.first == 1 < len(self.seeds):
            raise SearchError(
                f"{self.name} measures the reward's deviation on its first candidates, but start = 1 is one alone; "
                "give a deviation or a temperature, or start with at least 2."
            )

    def run(self) -> Iterator[Scored]:
        """The first candidates, then one iterate after the other."""
        n = len(self.seeds)
        begun = self.sampler.init(self.seeds[: self.first])
        origin = self._noise(begun)
        scored, top, slopes = self._look(begun, origin, origin, begun.streams, climbs=n > self.first)
        yield scored
        strength = self.scale.full(checked_scores(scored.scores, scored.particles)) or 0.0
        pivot, origin = begun[[top]], [noise[top : top + 1] for noise in origin]
        slopes = [slope[top : top + 1] for slope in slopes]
        noise = [one.clone() for one in origin]
        optimiser = self.optimiser(noise)
        for place in range(self.first, n):
            self._move(optimiser, noise, [strength * slope for slope in slopes], place)
            key = derive(self.name, self.seeds[0], place)
            scored, _, slopes = self._look(pivot, origin, noise, (key,), climbs=place < n - 1)
            yield scored

    def _move(self, optimiser: Optimizer, noise: Sequence[Tensor], slopes: Sequence[Tensor], place: int) -> None:
        """Move the noise in place, up the gradient of the objective."""
        with torch.enable_grad():
            leaves = [one.detach().requires_grad_() for one in noise]
            pulls = gradients(self.prior(leaves, place), leaves)
        for one, slope, pull in zip(noise, slopes, pulls, strict=True):
            one.grad = -(slope + pull)  # optimisers of torch minimise
        torch.nn.utils.clip_grad_norm_(noise, self.clip(sum(one.numel() for one in noise)))
        optimiser.step()

    def _look(
        self, begun: Particles, origin: Sequence[Tensor], noise: Sequence[Tensor], keys: Sequence[int], *, climbs: bool
    ) -> tuple[Scored, int, Sequence[Tensor]]:
        """Finished candidates and scores, the best one's place, and the gradients of its score if it `climbs` on."""
        with torch.set_grad_enabled(climbs):
            leaves = [one.detach().requires_grad_(climbs) for one in noise]
            shifts = [leaf - one for leaf, one in zip(leaves, origin, strict=True)]
            ended = self._finished(begun, shifts, tuple(keys))
            scores = self.using.critic(ended)
            (top,) = best(scores.detach(), 1)
            slopes = gradients(scores[top], leaves) if climbs else ()
        return Scored(ended.detach(), scores.detach()), top, slopes

    def _finished(self, particles: Particles, shifts: Sequence[Tensor], keys: tuple[int, ...]) -> Particles:
        """Particles whose noise is shifted, at the end of their way, under the names of the candidates they become."""
        try:
            particles = _shifted(particles, shifts[0], self.sampler.start_scale)
            for step, shift in zip(self.steps, shifts[1:], strict=True):
                particles = self.using.sampler.advance(particles, to=step + 1)
                particles = _shifted(particles, shift, self.sampler.noise_scale(step))
            return replace(self.using.sampler.advance(particles, to=self.sampler.steps), streams=keys)
        except BudgetExceeded as refused:
            if refused.particles is not None:
                refused.particles = replace(refused.particles, streams=keys)
            raise

    def _noise(self, begun: Particles) -> list[Tensor]:
        """Of the start and of each step of `steps`, standard normal; each (N, ...)."""
        start = begun.latents.to(wide(begun.latents)) / self.sampler.start_scale
        shape = begun.latents.shape[1:]
        return [start, *(step_noise(begun.streams, step, shape).to(start) for step in self.steps)]


def _shifted(particles: Particles, shift: Tensor, scale: float) -> Particles:
    """Particles whose last noise, of this scale, is another by `shift` (N, ...); by 0, the same to the bit."""
    latents = particles.latents.to(wide(particles.latents)) + scale * shift
    return replace(particles, latents=latents.to(particles.latents.dtype))


def ascent_cost(n: int, steps: int, start: int) -> Cost:
    """What n candidates cost of which `start` are independent, exactly; all but the last take a gradient."""
    return Cost(nfe=n * steps, rewards=n, decodes=n, backwards=(n - 1) * steps if n > start else 0)
