"""What a run costs: counted where it is spent, reserved before it is spent.

1 NFE is one denoiser evaluation for one particle. What guidance adds to it is a property of the sampler and is
reported beside the NFE, never mixed into it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from bon_search.errors import BudgetExceeded, SearchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from pipelines import Particles, Sampler


@dataclass(frozen=True)
class Cost:
    """An amount of work: spent, planned, or allowed.

    Attributes:
        nfe: Denoiser evaluations, counted per particle.
        rewards: Pictures scored.
        decodes: Latents turned into pictures, counted per particle.
        seconds: Wall time.
    """

    nfe: float = 0
    rewards: float = 0
    decodes: float = 0
    seconds: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @classmethod
    def at_most(
        cls, *, nfe: float = math.inf, rewards: float = math.inf, decodes: float = math.inf, seconds: float = math.inf
    ) -> Cost:
        """A budget: what is not named is unlimited."""
        return cls(nfe, rewards, decodes, seconds)


class Ledger:
    """The running account of one search.

    Args:
        budget: Limits that are never overshot (`Cost.at_most`). Seconds are checked against the clock before each
            move; how long the move itself will take cannot be known.
    """

    def __init__(self, budget: Cost | None = None) -> None:
        self.budget = budget or Cost.at_most()
        self._spent = Cost()
        self._start = time.perf_counter()

    @property
    def spent(self) -> Cost:
        """All that was spent so far; `seconds` is the time since the ledger was opened."""
        return self._spent + Cost(seconds=time.perf_counter() - self._start)

    def reserve(self, cost: Cost) -> None:
        """Enter a cost before its work is done.

        Raises:
            BudgetExceeded: The sum would overshoot the budget; the account is unchanged.
            SearchError: A negative amount, which no move costs.
        """
        if min(cost.nfe, cost.rewards, cost.decodes) < 0:
            raise SearchError(f"{cost} is no work; particles advance only to later steps: renoise goes back.")
        after = self.spent + cost
        for field in fields(Cost):
            limit, value = getattr(self.budget, field.name), getattr(after, field.name)
            if value > limit:
                raise BudgetExceeded(
                    f"The next move would bring the cost to {value:g} {field.name}, beyond the budget of {limit:g}; "
                    "the run ends here with what is finished."
                )
        self._spent = self._spent + cost


class MeteredSampler:
    """A sampler whose moves are entered in a ledger; otherwise the sampler itself."""

    def __init__(self, sampler: Sampler, ledger: Ledger) -> None:
        self.steps = sampler.steps
        self._sampler = sampler
        self._ledger = ledger

    def init(self, seeds: Sequence[int]) -> Particles:
        """Pure noise for each seed, at step 0; free."""
        return self._sampler.init(seeds)

    def advance(self, particles: Particles, to: int) -> Particles:
        """Denoise to step `to`; (to - step) NFE per particle."""
        self._ledger.reserve(Cost(nfe=len(particles) * (to - particles.step)))
        return self._sampler.advance(particles, to)

    def renoise(self, particles: Particles, to: int, seed: int) -> Particles:
        """Go back to step `to` by the forward kernel; free."""
        return self._sampler.renoise(particles, to, seed)

    def decode(self, particles: Particles) -> Tensor:
        """Pictures of the particles; one decode each."""
        self._ledger.reserve(Cost(decodes=len(particles)))
        return self._sampler.decode(particles)
