"""Run searches one after the other, each from the survivors of those before; a single one is the shortest relay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import torch

from bon_search.checks import check_absolute
from bon_search.errors import BudgetExceeded
from bon_search.ledger import Cost
from bon_search.leftover import finish_best
from bon_search.potentials import Scale
from bon_search.search import Critic, Scored
from bon_search.survivors import Continued, Remembering, Survivor, survivors

if TYPE_CHECKING:
    from torch import Tensor

    from bon_search.entry import Leg
    from bon_search.ledger import Ledger, MeteredSampler
    from pipelines import Particles, Sampler


@dataclass(frozen=True)
class Relay:
    """Searches in order, with all that starts them.

    Attributes:
        legs: The searches; each has a candidate at least.
        sampler: Metered.
        critic: Metered.
        ledger: Of both.
        seed: The candidates of the first start from seed, seed + 1, …; the fresh noise of the next goes on from there.
        batch_size: For searches that make their candidates independently.
        endless: Repeat each search until its budget ends it, the first with fresh seeds, the others from those who are
            best by then.
        stops: NFE after which each search but the last ended, in a run that is repeated; else none.
    """

    legs: Sequence[Leg]
    sampler: MeteredSampler
    critic: Critic
    ledger: Ledger
    seed: int
    batch_size: int | None = None
    endless: bool = False
    stops: Sequence[float] = ()

    def run(self) -> Iterator[Scored]:
        """All populations.

        Raises:
            SearchError: What any of the searches refuses, before anything is spent.
        """
        if len(self.legs) == 1:
            return self._single(self._start(self.legs[0], self.sampler, self.critic, self.seed))
        check_absolute(self.critic, " then ".join(leg.name for leg in self.legs))
        seed = self.seed
        for leg in self.legs:
            self._start(leg, Continued(self.sampler), self.critic, seed, deviation=1.0)  # and drop it
            seed += leg.n
        return self._run()

    def _start(
        self, leg: Leg, sampler: Sampler, critic: Critic, seed: int, deviation: float | None = None
    ) -> Iterator[Scored]:
        batch = {"batch_size": self.batch_size} if leg.batched else {}
        measured = {"deviation": deviation} if leg.measured else {}
        return leg.run(sampler, critic, n=leg.n, seed=seed, **{**leg.options, **batch, **measured})

    def _single(self, first: Iterator[Scored]) -> Iterator[Scored]:
        yield from first
        (leg,) = self.legs
        for seed in count(self.seed + leg.n, leg.n) if self.endless else ():
            yield from self._start(leg, self.sampler, self.critic, seed)

    def _run(self) -> Iterator[Scored]:
        found, next_seed = _Found(self.sampler.steps, max(leg.n for leg in self.legs[1:])), self.seed
        for place, leg in enumerate(self.legs):
            last = place == len(self.legs) - 1
            self.ledger.stage = Cost.at_most() if last else self._stage(place)
            try:
                for seed in count(next_seed, leg.n):
                    before, next_seed = self.ledger.spent.nfe, seed + leg.n
                    yield from found.noting(self._round(leg, found, seed, first=place == 0))
                    if not self.endless or self.ledger.spent.nfe == before:
                        break
            except BudgetExceeded as refused:
                if last or refused.particles is None:
                    raise
                yield from found.noting(self._rest(refused.particles, found.shown))
            found.end_search()
            self.ledger.handovers += () if last else (self.ledger.spent.nfe,)

    def _stage(self, place: int) -> Cost:
        if self.stops:
            return Cost.at_most(nfe=self.stops[place]) if place < len(self.stops) else Cost.at_most()
        return Cost.at_most(seconds=self.ledger.budget.seconds * self.legs[place].ends)

    def _round(self, leg: Leg, found: _Found, seed: int, *, first: bool) -> Iterator[Scored]:
        """One run of a search, from the survivors so far."""
        if first:
            yield from self._start(leg, Continued(self.sampler), self.critic, seed)
            return
        ready = [one for one in found.survivors[: leg.known] if one.undisturbed]
        sampler = Continued(
            self.sampler,
            begun={seed + k: one.begun for k, one in enumerate(found.survivors[: leg.n])},
            ended={one.end.streams[0]: one.end for one in ready},
        )
        if not ready:
            yield from self._start(leg, sampler, self.critic, seed, found.deviation)
            return
        critic = Remembering(self.critic, {one.end.streams[0]: one.score for one in ready})
        for scored in self._start(leg, sampler, critic, seed, found.deviation):
            new = critic.new(scored)
            if new is not None:
                yield new

    def _rest(self, refused: Particles, shown: Scored | None) -> Iterator[Scored]:
        return finish_best(Continued(self.sampler), self.critic, self.ledger, refused, shown)


class _Found:
    """What a relay hands on.

    Args:
        steps: K.
        most: Survivors that are kept.

    Attributes:
        survivors: Best first.
        shown: The last look of the search under way.
    """

    def __init__(self, steps: int, most: int) -> None:
        self.survivors: tuple[Survivor, ...] = ()
        self.shown: Scored | None = None
        self._steps = steps
        self._most = most
        self._finished: list[Tensor] = []  # scores of the first search
        self._spreads: list[float] = []
        self._first = True

    def noting(self, looks: Iterator[Scored]) -> Iterator[Scored]:
        """The same looks, of which what is to be handed on is kept."""
        for scored in looks:
            self.shown = scored
            finished = scored.particles.step == self._steps
            if finished:
                self.survivors = survivors(self.survivors, scored, self._most)
            if self._first and finished:
                self._finished.append(scored.scores.detach().cpu())
            elif self._first:
                self._spreads.append(_spread(scored.scores))
            yield scored

    def end_search(self) -> None:
        """The next look is another search's."""
        self._first, self.shown = False, None

    @property
    def deviation(self) -> float:
        """Of the reward within the prompt, by the first search; infinite, which steers nothing, if all score the same.

        Choosing narrows what is finished, and previews differ less than pictures: the larger one counts.
        """
        finished = [_spread(torch.cat(self._finished))] if self._finished else []
        return max([*finished, *self._spreads], default=0.0) or math.inf


def _spread(scores: Tensor) -> float:
    """The standard deviation of scores (N,); 0 if they differ by rounding alone."""
    strength = Scale(strength=1.0).full(scores.detach().to("cpu", torch.float64))
    return 0.0 if strength is None else 1 / strength
