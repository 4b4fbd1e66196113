"""A mixture whose tilts are known, critics for them, and what a weighted population says of the tilted law."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bon_search.search import Critic
from bon_search.searches.smc import SmcScored
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.mixture import Tilt
from pipelines.particles import Particles

STEPS = 8
LOOKS = (2, 4, 6)


def mixture(*, exact: bool = True, eta: float = 0.0, steps: int = STEPS) -> GaussianMixtureSampler:
    """Three modes in the plane; `exact` steps follow the marginals at any number of steps."""
    means, scales, weights = [[-2.0, 0.5], [1.0, 1.5], [2.5, -1.0]], [0.4, 0.8, 0.6], [0.5, 0.3, 0.2]
    return GaussianMixtureSampler(means, scales, weights, steps, eta=eta, exact=exact)


@dataclass(frozen=True, eq=False)
class Quadratic:
    """r(x) = linear·x − curvature/2·|x|², of x0 before the end."""

    linear: tuple[float, float]
    curvature: float = 0.0

    def __call__(self, points: Tensor) -> Tensor:
        direction = torch.tensor(self.linear, dtype=points.dtype)
        return points @ direction - self.curvature / 2 * points.square().sum(dim=-1)

    def critic(self, steps: int = STEPS) -> Critic:
        def critic(particles: Particles) -> Tensor:
            assert particles.x0 is not None
            return self(particles.latents if particles.step == steps else particles.x0)

        return critic

    def tilt(self, sampler: GaussianMixtureSampler, temperature: float) -> Tilt:
        direction = torch.tensor(self.linear, dtype=torch.float64)
        return sampler.law.tilt(direction / temperature, self.curvature / temperature)


LINEAR = Quadratic((0.6, 0.4))
CURVED = Quadratic((0.3, -0.5), 0.8)


def truth(tilt: Tilt) -> Tensor:
    """Mean (2), variances (2), mode weights (3) and 1, which stands for the evidence relative to the true one."""
    law = tilt.law
    return torch.cat([law.mean, law.covariance.diagonal(), law.log_weights.exp(), torch.ones(1, dtype=torch.float64)])


def estimate(look: SmcScored, tilt: Tilt) -> Tensor:
    """The same numbers by a weighted population; (8,)."""
    assert look.log_weights is not None
    weights, x, law = look.log_weights.softmax(0), look.particles.latents, tilt.law
    mean = weights @ x
    squares = (x[:, None] - law.means).square().sum(-1) / (2 * law.scales.square())
    modes = (law.log_weights - 2 * law.scales.log() - squares).softmax(dim=1)  # (N, 3): whose is this point?
    evidence = (torch.tensor([look.log_evidence]) - tilt.log_evidence).exp()
    return torch.cat([mean, weights @ (x - mean).square(), weights @ modes, evidence])


def last(looks: Iterable[SmcScored]) -> SmcScored:
    """The finished population."""
    *_, finished = looks
    return finished


def deviations(run: Callable[[int], SmcScored], tilt: Tilt, repeats: int = 8) -> Tensor:
    """By how many of its standard errors the mean of independent runs differs from the truth; (8,)."""
    found = torch.stack([estimate(run(10_000 * k), tilt) for k in range(repeats)])
    return (found.mean(0) - truth(tilt)) / (found.std(0) / repeats**0.5)
