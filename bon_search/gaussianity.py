"""How plausible a noise is as a draw of N(0, I): what keeps gradient searches from leaving it.

The most probable noise is zero, of which no model makes a picture, so the density itself is no guide. These are:

    shell           (d − 1)·log|z| − |z|²/2           log density of the length |z|, up to a constant (chi, d degrees)
    concentration   mean over permutations of log p₁ + log p₂

where the permuted noise is cut into m chunks of k numbers, and the bounds

    p₁ = min(1, 2·exp(−m·M₁²/2k)),                             M₁ = |mean of the chunks|
    p₂ = min(1, 2·exp(−m·max(sqrt(1 + M₂) − 1 − sqrt(k/m), 0)²/2)),   M₂ = ‖second moments of the chunks − I‖

are on the probabilities that chunks of true noise have a mean so far from 0, second moments so far from I. Both are 1
for nearly all true noise, so a plausible noise is left alone.

References:
    Eyring et al., "ReNO", 2024 (arXiv 2406.04312), after Samuel et al., "Norm-guided latent space exploration", 2023.
    Tang et al., "Inference-Time Alignment of Diffusion Models with Direct Noise Optimization", 2024 (arXiv 2405.18881).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CHUNK = 4  # numbers in a chunk, k
PERMUTATIONS = 8  # of one evaluation


def shell(noise: Tensor) -> Tensor:
    """Log density of the length of noise of d numbers, up to a constant; (). Highest at |z| = sqrt(d − 1)."""
    squares = noise.square().sum()
    return 0.5 * (noise.numel() - 1) * squares.log() - 0.5 * squares


def concentration(noise: Tensor, seed: int) -> Tensor:
    """Mean of log p₁ + log p₂ over random permutations of noise of d numbers, (); 0 for nearly all true noise.

    Args:
        noise: At least one number; what does not fill the last chunk of a permutation is left out of it.
        seed: Of the permutations.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    flat = noise.flatten()
    orders = [torch.randperm(len(flat), generator=generator).to(flat.device) for _ in range(PERMUTATIONS)]
    return torch.stack([_bounds(flat[order]) for order in orders]).mean()


def _bounds(noise: Tensor) -> Tensor:
    """Sum of log p₁ and log p₂ of noise (d,), cut in the order it comes."""
    size = min(CHUNK, len(noise))
    chunks = noise[: len(noise) // size * size].reshape(-1, size)  # (m, k)
    m = len(chunks)
    mean = chunks.mean(dim=0).square().sum()  # M₁²
    moments = chunks.T @ chunks / m - torch.eye(size, dtype=noise.dtype, device=noise.device)
    spread = torch.linalg.eigvalsh(moments).abs().max()  # M₂
    excess = ((1 + spread).sqrt() - 1 - math.sqrt(size / m)).clamp(min=0)
    logs = math.log(2) - torch.stack([m * mean / (2 * size), m * excess.square() / 2])
    return logs.clamp(max=0).sum()
