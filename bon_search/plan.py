"""What a run is to do: which search, from which seed, with how many candidates, for how much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from bon_search.errors import SearchError
from bon_search.ledger import Cost
from bon_search.table import Entry, load_search

if TYPE_CHECKING:
    from bon_search.ledger import Ledger, MeteredSampler
    from bon_search.search import Critic, Scored

USUAL = 16  # candidates, unless told otherwise


@dataclass(frozen=True)
class Plan:
    """A search that is ready to start.

    Attributes:
        entry: The search.
        n: What it starts with.
        seed: Candidate k starts from seed + k.
        options: What is set of the search.
        steps: K.
        budget: Limits that the run obeys.
        endless: Repeat it with fresh seeds until the budget ends it.
        stops: NFE after which each search of a composition but the last ended, in a run that is repeated.
    """

    entry: Entry
    n: int
    seed: int
    options: Mapping[str, object]
    steps: int
    budget: Cost
    endless: bool = False
    stops: tuple[float, ...] = ()

    @property
    def cost(self) -> Cost:
        """What it will spend, or spend at most."""
        own = self.entry.cost(self.n, self.steps, self.options)
        whole = Cost.at_most() if self.endless else own
        return Cost(*(min(getattr(whole, f.name), getattr(self.budget, f.name)) for f in fields(Cost)))

    @property
    def limits(self) -> dict[str, float]:
        """The finite limits of the budget."""
        named = {field.name: getattr(self.budget, field.name) for field in fields(Cost)}
        return {name: limit for name, limit in named.items() if math.isfinite(limit)}

    def start(
        self, sampler: MeteredSampler, critic: Critic, ledger: Ledger, batch_size: int | None
    ) -> Iterator[Scored]:
        """The populations of the search; `batch_size` candidates at a time where it makes them independently.

        Args:
            sampler: Metered.
            critic: Metered.
            ledger: Of both.
            batch_size: All at once when None.

        Raises:
            SearchError: What the search refuses.
        """
        from bon_search.relay import Relay  # here, since the command line must start without torch

        legs = self.entry.legs(self.n, self.steps, self.options)
        active = [leg for leg in legs if leg.n] or legs
        return Relay(active, sampler, critic, ledger, self.seed, batch_size, self.endless, self.stops).run()


def make_plan(
    search: str, *, n: int | None, seed: int, steps: int, options: Mapping[str, object], budget: Cost | None
) -> Plan:
    """Check a search and its options; find n if it is not given.

    Args:
        search: Name in the table, or several with "then" between them.
        n: Candidates; fewer are started if the budget does not pay for so many. None: as many as the budget pays
            for; one of time alone repeats the search with `USUAL` candidates; without a budget `USUAL`.
        seed: Of the run.
        steps: K.
        options: Of the search.
        budget: Limits; None is none.

    Raises:
        SearchError: No such search or option, or a budget that does not suffice for one candidate.
    """
    budget = budget or Cost.at_most()
    entry = load_search(search)
    plan = Plan(entry, USUAL if n is None else n, seed, entry.complete(options), steps, budget)
    if min(budget.nfe / steps, budget.rewards, budget.decodes) < 1:
        raise SearchError(
            f"One candidate costs {steps} NFE, a decode and a reward call, which this budget does not pay for; "
            "allow more, or take fewer steps."
        )
    if math.isinf(min(budget.nfe, budget.rewards, budget.decodes)):
        return replace(plan, endless=n is None and budget.seconds < math.inf)
    most = entry.starts(budget, steps, plan.options)
    return replace(plan, n=most if n is None else min(n, most))
