"""Runs whose end is exactly Gaussian at any number of steps, and the tilts of that law."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from bon_search.search import Critic
from bon_search.weighted import SmcScored
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.particles import Particles
from pipelines.transition import cosine_levels

DIRECTION = torch.tensor([1.0, 0.5], dtype=torch.float64)


def gaussian(steps: int, skipped: int = 0) -> GaussianMixtureSampler:
    """N(0, I) in the plane with all the noise of DDPM; its estimates mean something from step 0 on if some are skipped.

    Every step is a linear map and noise, so the end has the law N(0, `end_variance`·I).
    """
    sampler = GaussianMixtureSampler([[0.0, 0.0]], [1.0], [1.0], steps, eta=1.0)
    sampler.levels = cosine_levels(steps + skipped)[skipped:]
    return sampler


def end_variance(sampler: GaussianMixtureSampler) -> float:
    """By following the maps: the image of 1 without noise, squared, and the variance of the noise, step by step."""
    variance, one = 1.0, torch.ones(1, 2, dtype=torch.float64)
    for step in range(sampler.steps):
        kept = [sampler._step(Particles(x, step, (0,)), step).latents for x in (one, 0 * one)]
        variance = float((kept[0] - kept[1])[0, 0]) ** 2 * variance + sampler.noise_scale(step) ** 2
    return variance


def quadratic(sampler: GaussianMixtureSampler, curvature: float = 0.0) -> Critic:
    """r(x) = direction·x − curvature/2·|x|²."""

    def critic(particles: Particles) -> Tensor:
        points = particles.latents if particles.step == sampler.steps else particles.x0
        assert points is not None
        return points @ DIRECTION - curvature / 2 * points.square().sum(dim=1)

    return critic


def tilted(variance: float, curvature: float, temperature: float) -> Tensor:
    """Mean (2), variance and log evidence of N(0, variance·I) tilted by exp(r/temperature)."""
    shrink = 1 / (1 + curvature * variance / temperature)
    push = DIRECTION / temperature
    evidence = 0.5 * shrink * variance * push.square().sum() + torch.tensor(shrink).log()
    return torch.cat([shrink * variance * push, torch.tensor([shrink * variance]), evidence[None]])


def estimated(looks: Iterable[SmcScored]) -> Tensor:
    """The same four numbers by the finished population."""
    *_, last = looks
    assert last.log_weights is not None
    weights, x = last.log_weights.softmax(0), last.particles.latents
    mean = weights @ x
    variance = (weights @ (x - mean).square()).mean()
    return torch.cat([mean, variance[None], torch.tensor([last.log_evidence])])


def deviations(found: Tensor, truth: Tensor) -> Tensor:
    """By how many of its standard errors the mean of independent runs (R, D) differs from the truth (D,)."""
    return (found.mean(0) - truth) / (found.std(0) / len(found) ** 0.5)
