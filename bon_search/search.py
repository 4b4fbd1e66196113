"""What a search is: a generator of scored populations that owns no budget, progress bar, picture or file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bon_search.errors import SearchError

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines import Particles

Critic = Callable[["Particles"], "Tensor"]
Search = Callable[..., Iterator["Scored"]]


@dataclass(frozen=True)
class Scored:
    """A population and what the critic says of it.

    Attributes:
        particles: N particles, finished or not.
        scores: (N,) higher is better.
        log_weights: (N,) importance weights of a particle method; None where all weigh the same.
    """

    particles: Particles
    scores: Tensor
    log_weights: Tensor | None = None


MAX_SEED = 2**63 - 1


def seeds(seed: int, n: int) -> range:
    """The seeds of n candidates: seed, seed + 1, …; more candidates later only lengthen the list.

    Raises:
        SearchError: n is not positive, or a seed is outside 0 … 2^63 - 1.
    """
    if n < 1:
        raise SearchError(f"n = {n} asks for no candidate at all; ask for at least 1.")
    if not 0 <= seed <= MAX_SEED - n + 1:
        raise SearchError(f"seed {seed} with {n} candidates leaves 0 … 2^63 - 1; choose a smaller non-negative seed.")
    return range(seed, seed + n)
