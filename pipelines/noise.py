"""Noise is a function: of the seed at the start, of (stream, step) later on.

No global random state is read or written. All noise is drawn on the CPU, one generator per particle, so that neither
the batch size, nor the order of the particles, nor the device, nor the places where a run was split can change it.

A particle's first stream is its seed. `derive` makes any further key by hashing, so keys never meet by arithmetic.
"""

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from pipelines.errors import PipelineError

SEED_LIMIT = 2**63


def derive(*key: int | str) -> int:
    """Return a 63-bit integer that depends on every part of the key, the same on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") % SEED_LIMIT


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds as plain integers.

    Raises:
        PipelineError: no seeds, or one that is not an integer in [0, 2⁶³).
    """
    if len(seeds) == 0:
        raise PipelineError("No seeds were given, so there is nothing to sample: give one integer seed per candidate.")
    for seed in seeds:
        if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= int(seed) < SEED_LIMIT:
            raise PipelineError(f"A seed must be an integer from 0 to 2**63 - 1, but got {seed!r}.")
    return tuple(int(seed) for seed in seeds)


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One fresh CPU generator per seed, as a diffusers user would make them for a stock pipeline."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def initial_noise(seeds: Sequence[int], shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal noise (N, *shape) on the CPU; row i is what a stock pipeline draws first for seed i."""
    return torch.stack([torch.randn(tuple(shape), generator=one, dtype=dtype) for one in generators(seeds)])


def step_noise(streams: Sequence[int], step: int, shape: Sequence[int], *, draw: int = 0) -> Tensor:
    """Standard normal noise for one step of each particle, independent over streams, steps and draws.

    Args:
        streams: (N,) keys.
        step: the position 0..K-1 of the step that uses the noise.
        shape: the shape of one particle.
        draw: counts the draws within the step; nearly all schedulers draw once.

    Returns:
        (N, *shape) float32 on the CPU.
    """
    keys = [derive("step", stream, step, draw) for stream in streams]
    return initial_noise(keys, shape)
