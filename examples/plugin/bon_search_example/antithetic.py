"""Best-of-N on noises in pairs: each with its negation, whose picture is often the opposite one.

A standard normal noise and its negation are equally likely, so no candidate is worse than those of best-of-N, but the
two of a pair are negatively correlated. If the score is an odd function of the noise, the better of a pair is above the
median, always.

References:
    Jia et al., "Antithetic Noise in Diffusion Models", 2025 (arXiv 2506.06185): the negative correlation.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from bon_search.ledger import Cost
from bon_search.search import Critic, Scored, seeds
from pipelines.noise import derive
from pipelines.particles import Particles
from pipelines.sampler import Sampler

__references__ = ("arXiv:2506.06185",)
__cost__ = "n·K NFE, n scores"


def antithetic(
    sampler: Sampler, critic: Critic, *, n: int, seed: int = 0, batch_size: int | None = None
) -> Iterator[Scored]:
    """Finish n candidates from noises and their negations.

    Args:
        sampler: Any that starts from noise around zero.
        critic: Any.
        n: Candidates: those of the seeds seed, seed + 1, …, and their opposites; of an odd number the last has none.
        seed: As above.
        batch_size: Candidates made at a time, in whole pairs; all at once when None.

    Yields:
        The finished candidates of each batch.

    Raises:
        SearchError: n or seed out of range.
    """
    starts = seeds(seed, (n + 1) // 2)
    width = max(1, batch_size // 2) if batch_size else len(starts)
    for first in range(0, len(starts), width):
        pairs = _pairs(sampler, starts[first : first + width])[list(range(min(2 * width, n - 2 * first)))]
        particles = sampler.advance(pairs, to=sampler.steps)
        yield Scored(particles, critic(particles))


def cost(n: int, steps: int) -> Cost:
    """What `antithetic` spends, exactly."""
    return Cost(nfe=n * steps, rewards=n, decodes=n)


def _pairs(sampler: Sampler, starts: range) -> Particles:
    """Noise, its opposite, the next noise, its opposite, …; an opposite draws later noise of its own."""
    begun = sampler.init(starts)[[place for place in range(len(starts)) for _ in range(2)]]
    signs = torch.tensor([1, -1] * len(starts)).reshape(-1, *[1] * (begun.latents.ndim - 1)).to(begun.latents)
    streams = tuple(derive("antithetic", key, 0) if place % 2 else key for place, key in enumerate(begun.streams))
    return replace(begun, latents=signs * begun.latents, streams=streams)
