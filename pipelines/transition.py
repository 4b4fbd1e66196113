"""The one Gaussian transition kernel between noise levels.

A state x = alpha·x0 + sigma·eps moves to the level (alpha', sigma') by

    x' = alpha'·x0 + sigma'·(rho·eps + sqrt(1 − rho²)·noise),   rho in [0, 1].

Whatever rho is, x' has the noise level sigma' exactly, at any number of steps. rho = 1 is the ODE (Euler, DDIM) step,
rho = 0 redraws all noise, and DDIM's eta and every flow SDE lie between. The variance-preserving case is equation 12 of
Song, Meng and Ermon (2021), "Denoising diffusion implicit models", arXiv 2010.02502.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Level(NamedTuple):
    """A noise level: x = alpha·x0 + sigma·eps; both are () tensors, sigma > 0 except at the clean end."""

    alpha: Tensor
    sigma: Tensor


def rho_of_eta(eta: float, now: Level, then: Level) -> Tensor:
    """The rho of DDIM's eta: rho² = 1 − eta²·(1 − rho_D²), rho_D = alpha·sigma' / (alpha'·sigma) (DDPM); shape ()."""
    ddpm = now.alpha * then.sigma / (then.alpha * now.sigma)
    return (1 - eta**2 * (1 - ddpm.square())).sqrt()


def transition(latents: Tensor, x0: Tensor, noise: Tensor, *, now: Level, then: Level, rho: Tensor) -> Tensor:
    """Move latents (N, ...) with clean estimates x0 (N, ...) from one noise level to another.

    Args:
        latents: (N, ...) at level `now`, whose sigma is positive.
        x0: (N, ...) clean estimates; taken as known within the step.
        noise: (N, ...) standard normal; without effect if rho is 1.
        now: the level of the latents.
        then: the level to reach.
        rho: () in [0, 1], how much of the old noise is kept.

    Returns:
        (N, ...) at level `then`.
    """
    eps = (latents - now.alpha * x0) / now.sigma
    return then.alpha * x0 + then.sigma * (rho * eps + (1 - rho.square()).sqrt() * noise)


def forward(latents: Tensor, noise: Tensor, *, now: Level, then: Level) -> Tensor:
    """Diffuse latents (N, ...) forward to a noisier level, such that a marginal law stays a marginal law.

    x' = (alpha'/alpha)·x + sqrt(sigma'² − (alpha'·sigma/alpha)²)·noise; alpha must be positive.
    """
    kept = then.alpha / now.alpha
    return kept * latents + (then.sigma.square() - (kept * now.sigma).square()).clamp(min=0).sqrt() * noise


def cosine_levels(steps: int, *, dtype: torch.dtype = torch.float64) -> tuple[Level, ...]:
    """alpha_k = sin(πk/2K), sigma_k = cos(πk/2K) for k = 0..K: from pure noise (0, 1) to clean (1, 0); K + 1 levels."""
    angle = torch.linspace(0, torch.pi / 2, steps + 1, dtype=torch.float64)
    alphas, sigmas = angle.sin(), angle.cos()
    sigmas[-1] = 0
    return tuple(Level(alpha.to(dtype), sigma.to(dtype)) for alpha, sigma in zip(alphas, sigmas, strict=True))
