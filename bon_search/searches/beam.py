"""Beam search: of all children together the best `width` go on, and share out the next generation.

Width 1 is `code`: greedy. A wide beam forgives a misleading preview, at the price of fewer children for each survivor.

References:
    Oshima et al., "Inference-Time Text-to-Video Alignment with Diffusion Latent Beam Search", 2025 (arXiv 2501.19252).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bon_search.branching import START, branch, check_stochastic, choices
from bon_search.checks import check_count
from bon_search.ledger import Cost
from bon_search.search import Critic, Scored, seeds
from bon_search.searches.halving import best

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from pipelines.sampler import Sampler

__references__ = ("arXiv:2501.19252",)
__cost__ = "n·K NFE, n·(choices + 1) scores"
__branches__ = True


def beam(
    sampler: Sampler, critic: Critic, *, n: int, width: int = 2, every: int = 2, start: float = START, seed: int = 0
) -> Iterator[Scored]:
    """Beam search: the best `width` of all n children go on, and have n children again.

    Args:
        sampler: Stochastic.
        critic: Need only rank the children of one look.
        n: Children of all beams together; child k of the first generation starts from seed + k.
        width: Beams. They share the n children as evenly as can be, in the order of their places.
        every: Steps from one choice to the next, at least 2.
        start: Share of the steps before the first choice.
        seed: As above.

    Yields:
        All children at each choice, and at last the finished ones.

    Raises:
        SearchError: An argument out of range, a deterministic sampler, a score that is NaN.
    """
    check_stochastic(sampler, "beam")
    check_count("width", width)

    def ancestors(scores: Tensor) -> list[int]:
        """The best, each as often as it has children, in ascending order."""
        kept = best(scores, min(width, n))
        return [kept[child * len(kept) // n] for child in range(n)]

    return branch(sampler, critic, seeds(seed, n), choices(sampler.steps, every, start), ancestors)


def cost(n: int, steps: int, every: int = 2, start: float = START) -> Cost:
    """What `beam` spends, exactly if fresh noise is drawn to the end; less where it stops earlier."""
    times = n * (len(choices(steps, every, start)) + 1)
    return Cost(nfe=n * steps, rewards=times, decodes=times)
