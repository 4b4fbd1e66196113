"""Neighbours of a noise that are themselves noise: moves that keep a population at its noise level.

A state is signal and noise, x = m + σ·ε, and its neighbour of size s in (0, 1] is

    x' = m + σ·(sqrt(1 − s²)·ε + s·z),   z ~ N(0, I).

If ε is standard normal then so is what replaces it, so however many moves are chained the noise stays on its shell
|ε|² ≈ d, where adding s·z would make it grow (the preconditioned Crank-Nicolson move of MCMC). s = 1 forgets ε.

At step 0 the signal is zero. Later it is alpha·x0 with the last estimate x0 held, so that x' is what the transition
kernel of `pipelines.transition` gives, with rho = sqrt(1 − s²), for the step that ended in x. Both parts come from the
sampler's own verbs, so that no pipeline's scale or packing needs to be known: `init` for the noise of step 0, `renoise`
of x0 and of zeros for later levels. Pipelines that start from more than scaled noise (image to image) are not served.

References:
    Cotter, Roberts, Stuart and White, "MCMC Methods for Functions", 2013 (arXiv 1202.0709).
    Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps", 2025 (arXiv 2501.09732):
    neighbours at a fixed angle of the noise, which this is in high dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipelines.particles import EMPTY, Particles
from pipelines.sampler import Sampler


def neighbours(sampler: Sampler, pivots: Particles, sizes: Sequence[float], keys: Sequence[int]) -> Particles:
    """N neighbours, at the step of the pivots; 0 NFE.

    Args:
        sampler: Made the pivots.
        pivots: N particles, or one whose neighbours all are; beyond step 0 with an x0, which the neighbours keep.
        sizes: (N,) above 0 and up to 1.
        keys: (N,) distinct; each decides the noise of its neighbour and becomes its stream.

    Returns:
        N particles without a solver history, since it belongs to another noise.
    """
    pivots = pivots[[0] * len(keys)] if len(pivots) == 1 else pivots
    latents = pivots.latents.to(_wide(pivots.latents))
    signal, noise = _parts(sampler, pivots, keys)
    size = torch.tensor(sizes, dtype=torch.float64).reshape(-1, *[1] * (latents.ndim - 1)).to(latents)
    moved = signal + (1 - size.square()).sqrt() * (latents - signal) + size * noise  # (N, ...)
    return replace(pivots, latents=moved.to(pivots.latents.dtype), streams=tuple(keys), memory=EMPTY)


def _parts(sampler: Sampler, pivots: Particles, keys: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The signal m of each pivot and fresh noise σ·z of its level; each (N, ...)."""
    if pivots.step == 0:
        noise = sampler.init(keys).latents.to(_wide(pivots.latents))
        return torch.zeros_like(noise), noise
    assert pivots.x0 is not None, "particles beyond step 0 have taken a step"
    x0 = pivots.x0.to(_wide(pivots.x0))

    def diffused(clean: Tensor) -> Tensor:
        return sampler.renoise(Particles(clean, sampler.steps, tuple(keys)), to=pivots.step, seed=0).latents

    noise = diffused(torch.zeros_like(x0))
    return diffused(x0) - noise, noise


def _wide(latents: Tensor) -> torch.dtype:
    """In half precision many small moves would round to none."""
    return torch.promote_types(latents.dtype, torch.float32)
