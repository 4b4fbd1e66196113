"""CoDe: best-of-n by blocks of steps. Of n children the best one goes on, and after a block has n children again.

A block of all steps is plain best-of-N. With one chain of 8 children and blocks of 2 steps, what would be 8 pictures
becomes one picture chosen 1 of 8 at every second step; the more of them, the greedier. The best child's own
evaluation is the first of its children's, so a choice adds no NFE; the noise of the step in which children are looked
at is not seen by the choice.

References:
    Singh et al., "CoDe: Blockwise Control for Denoising Diffusion Models", 2025 (arXiv 2502.00968).
"""

from __future__ import annotations

from itertools import pairwise
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

__references__ = ("arXiv:2502.00968",)
__cost__ = "n·K NFE, n·(choices + 1) scores"
__branches__ = True


def code(
    sampler: Sampler, critic: Critic, *, n: int, every: int = 2, chains: int = 1, start: float = START, seed: int = 0
) -> Iterator[Scored]:
    """CoDe, best-of-n by blocks: the best child of each chain goes on, and has children again.

    Args:
        sampler: Stochastic.
        critic: Need only rank the children of one chain at one look.
        n: Children of all chains together; child k of the first generation starts from seed + k.
        every: Steps of a block, at least 2.
        chains: Independent searches, which share the n children as evenly as can be.
        start: Share of the steps before the first choice.
        seed: As above.

    Yields:
        All children at each choice, and at last the finished ones.

    Raises:
        SearchError: An argument out of range, a deterministic sampler, a score that is NaN.
    """
    check_stochastic(sampler, "code")
    check_count("chains", chains)
    starts = seeds(seed, n)
    edges = [n * chain // min(chains, n) for chain in range(min(chains, n) + 1)]

    def ancestors(scores: Tensor) -> list[int]:
        """In each chain the best child, as often as the chain has children."""
        return [a + best(scores[a:b], 1)[0] for a, b in pairwise(edges) for _ in range(a, b)]

    return branch(sampler, critic, starts, choices(sampler.steps, every, start), ancestors)


def cost(n: int, steps: int, every: int = 2, start: float = START) -> Cost:
    """What `code` spends, exactly if fresh noise is drawn to the end; less where it stops earlier."""
    times = n * (len(choices(steps, every, start)) + 1)
    return Cost(nfe=n * steps, rewards=times, decodes=times)
