"""What a run costs: counted where it is spent, reserved before it is spent.

1 NFE is one denoiser evaluation for one particle. What guidance adds to it is a property of the sampler and is
reported beside the NFE, never mixed into it. So are backward passes: one of them is the gradient of one such evaluation
for one particle. It computes the evaluation again, to keep memory bounded, and then goes back through it; that takes
about as long as `BACKWARD` evaluations, none of which is an NFE.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from bon_search.differentiable import differentiable
from bon_search.errors import BudgetExceeded, SearchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from pipelines import Particles, Sampler
    from pipelines.sampler import DifferentiableSampler


BACKWARD = 3  # evaluations that a backward pass lasts: one repeated, and two for going back


@dataclass(frozen=True)
class Cost:
    """An amount of work: spent, planned, or allowed.

    Attributes:
        nfe: Denoiser evaluations, counted per particle.
        rewards: Pictures scored.
        decodes: Latents turned into pictures, counted per particle.
        seconds: Wall time.
        backwards: Gradients of denoiser evaluations, counted per particle and step.
    """

    nfe: float = 0
    rewards: float = 0
    decodes: float = 0
    seconds: float = 0
    backwards: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @classmethod
    def at_most(
        cls,
        *,
        nfe: float = math.inf,
        rewards: float = math.inf,
        decodes: float = math.inf,
        seconds: float = math.inf,
        backwards: float = math.inf,
    ) -> Cost:
        """A budget: what is not named is unlimited."""
        return cls(nfe, rewards, decodes, seconds, backwards)

    @property
    def evaluations(self) -> float:
        """NFE that last as long as its NFE and backward passes together."""
        return self.nfe + BACKWARD * self.backwards


class Ledger:
    """The running account of one search.

    Args:
        budget: Limits that are never overshot (`Cost.at_most`), but for seconds: how long a move of the denoiser will
            take is estimated, from the seconds that an NFE has taken so far, and what it made is looked at in any case.

    Attributes:
        kept_back: What no move may touch: a search that has finished nothing yet leaves itself the means to finish
            one candidate.
        stage: Limits of moves, within the budget, until the next of several searches takes over.
        handovers: NFE spent when each of several searches but the last ended.
    """

    def __init__(self, budget: Cost | None = None) -> None:
        self.budget = budget or Cost.at_most()
        self.kept_back = Cost()
        self.stage = Cost.at_most()
        self.handovers: tuple[float, ...] = ()
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
        if min(cost.nfe, cost.rewards, cost.decodes, cost.backwards) < 0:
            raise SearchError(f"{cost} is no work; particles advance only to later steps: renoise goes back.")
        after = self.spent + self._timed(cost)
        for field in fields(Cost):
            limit, value = self._limit(field.name, cost), getattr(after, field.name)
            if value + getattr(self._timed(self.kept_back), field.name) > limit:
                raise BudgetExceeded(
                    f"The next move would bring the cost to {value:g} {field.name}, beyond the budget of {limit:g}; "
                    "the run ends here with what is finished."
                )
        self._spent = self._spent + cost

    def affords(self, cost: Cost) -> int | None:
        """How many times this cost what is left would pay for; None if without limit."""
        left, each = self.spent, self._timed(cost)
        times = [
            (self._limit(f.name, cost) - getattr(left, f.name)) / getattr(each, f.name)
            for f in fields(Cost)
            if getattr(each, f.name) > 0
        ]
        fewest = min(times, default=math.inf)
        return None if math.isinf(fewest) else max(0, math.floor(fewest))

    @property
    def must_learn(self) -> bool:
        """Whether time is limited, and how long an NFE takes is not known yet."""
        return math.isfinite(min(self.budget.seconds, self.stage.seconds)) and not self._spent.nfe

    def _limit(self, name: str, cost: Cost) -> float:
        """What counts against a cost: a stage or the time ends before a move, not between a move and its look."""
        whole: float = getattr(self.budget, name)
        stage: float = getattr(self.stage, name)
        if cost.nfe:
            return min(whole, stage)
        return math.inf if name == "seconds" else whole

    def _timed(self, cost: Cost) -> Cost:
        """The cost with the seconds that its evaluations will take at the pace so far."""
        spent = self.spent
        return cost + Cost(seconds=cost.evaluations * spent.seconds / spent.evaluations if spent.nfe else 0)


class MeteredSampler:
    """A sampler whose moves are entered in a ledger; otherwise the sampler itself.

    Raises:
        BudgetExceeded: From `advance` and `decode`; it names the particles that were to move.
    """

    def __init__(self, sampler: Sampler, ledger: Ledger) -> None:
        self.steps = sampler.steps
        self._sampler = sampler
        self._ledger = ledger
        self._finished = False
        self._gradients = False
        self._whole: MeteredSampler | None = None  # for drafts, whose end finishes nothing: the sampler that will
        self._begin: Callable[[Sequence[int]], Particles] = self.init  # by names, where that one starts

    @property
    def stochastic(self) -> bool:
        """Whether copies of a particle part on the way."""
        return self._sampler.stochastic

    @property
    def stochastic_steps(self) -> range:
        """The steps at which they may part."""
        return self._sampler.stochastic_steps

    def noise_scale(self, step: int) -> float:
        """The standard deviation of the fresh noise after the step from position `step`; 0 if none."""
        return self._differentiable.noise_scale(step)

    @property
    def start_scale(self) -> float:
        """The standard deviation of the noise that `init` makes."""
        return self._differentiable.start_scale

    def with_steps(self, steps: int, begin: Callable[[Sequence[int]], Particles] | None = None) -> MeteredSampler:
        """The same in another number of steps; in the same ledger.

        Args:
            steps: As many.
            begin: The full run's first noises of particles by their names, if these are not the seeds of them.

        Raises:
            SearchError: The sampler cannot.
        """
        with_steps = getattr(self._sampler, "with_steps", None)
        if with_steps is None:
            raise SearchError(f"{type(self._sampler).__name__} makes no drafts; use halving or best_of_n.")
        other = MeteredSampler(with_steps(steps), self._ledger)
        other._whole, other._begin = self, begin or self.init
        return other

    def with_grad(self) -> MeteredSampler:
        """The same, whose moves let gradients flow; in the same ledger.

        A move of latents that require a gradient is entered with its backward pass, since the way there decides what
        the way back will take.

        Raises:
            SearchError: The sampler cannot.
        """
        other = MeteredSampler(self._differentiable.with_grad(), self._ledger)
        other._gradients = True
        return other

    @property
    def _differentiable(self) -> DifferentiableSampler:
        return differentiable(self._sampler)

    def init(self, seeds: Sequence[int]) -> Particles:
        """Pure noise for each seed, at step 0; free."""
        return self._sampler.init(seeds)

    def advance(self, particles: Particles, to: int) -> Particles:
        """Denoise to step `to`; (to - step) NFE per particle, and as many backward passes if a gradient will flow."""
        import torch  # here, since the command line must start without it

        if self._ledger.must_learn and to > particles.step + 1:
            particles = self.advance(particles, particles.step + 1)
        self._keep_back(to)
        nfe = len(particles) * (to - particles.step)
        back = self._gradients and torch.is_grad_enabled() and particles.latents.requires_grad
        self._pay(Cost(nfe=nfe, backwards=nfe if back else 0), particles)
        return self._sampler.advance(particles, to)

    def renoise(self, particles: Particles, to: int, seed: int) -> Particles:
        """Go back to step `to` by the forward kernel; free."""
        return self._sampler.renoise(particles, to, seed)

    def decode(self, particles: Particles) -> Tensor:
        """Pictures of the particles; one decode each."""
        self._pay(Cost(decodes=len(particles)), particles)
        return self._sampler.decode(particles)

    def _keep_back(self, to: int) -> None:
        """Until a candidate is finished, the means to finish one of the particles that move to step `to`."""
        whole = self._whole or self
        whole._finished = whole._finished or (whole is self and to == self.steps)
        left = whole.steps if self._whole else self.steps - to
        self._ledger.kept_back = Cost() if whole._finished else Cost(nfe=left, rewards=1, decodes=1)

    def _pay(self, cost: Cost, particles: Particles) -> None:
        try:
            self._ledger.reserve(cost)
        except BudgetExceeded as refused:
            refused.particles = self._begin(particles.streams) if self._whole else particles.detach()
            raise
