"""Best-of-N: finish n independent noises and let the reward choose (random search).

References:
    Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps", 2025, section 3
    (arXiv 2501.09732).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bon_search.ledger import Cost
from bon_search.search import Critic, Scored, seeds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines import Sampler

__references__ = ("arXiv:2501.09732",)
__cost__ = "n·K NFE, n scores"


def best_of_n(
    sampler: Sampler, critic: Critic, *, n: int, seed: int = 0, batch_size: int | None = None
) -> Iterator[Scored]:
    """Finish n candidates and keep the best; `batch_size` of them are made at a time, all at once when None."""
    wanted, width = seeds(seed, n), batch_size or n
    for start in range(0, n, width):
        particles = sampler.advance(sampler.init(wanted[start : start + width]), to=sampler.steps)
        yield Scored(particles, critic(particles))


def cost(n: int, steps: int) -> Cost:
    """What `best_of_n` spends, exactly."""
    return Cost(nfe=n * steps, rewards=n, decodes=n)


def leaves(n: int, steps: int) -> int:
    """All candidates, undisturbed from their noise on."""
    return n


def takes(n: int, steps: int) -> int:
    """All candidates, which it takes to the end at once."""
    return n
