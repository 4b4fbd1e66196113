"""Several searches one after the other, each from the survivors of those before: "halving then zero_order".

n is the work of n candidates, n·K NFE, which `split` divides; one candidate of the first search is made anyway, even if
it takes more, as a draft and its full run do. Each search gets as many candidates of its own as its
part of the work pays for, and what it leaves over goes to the next. It begins with the best candidates so far, one for
each noise (`bon_search.survivors`), and then with fresh noise. A part that does not pay for a candidate is left out, so
that a small n is the first search alone. A budget of time is divided by the clock.

What is handed on beside the noises:

* Finished candidates, unpaid, if the next search takes its first ones to the end at once (`takes`: zero_order does) and
  those of all searches before are undisturbed from their noise on (`leaves`: best_of_n, halving and zero_order). Any
  other search evaluates what it begins with again, by looks or for gradients, and its cost says so.
* The reward's deviation within the prompt, if the next search has an option for it that nobody sets: that of the first
  search's finished candidates or of one of its looks, whichever is larger, since choosing narrows the one and previews
  narrow the other. What needs several first candidates for it alone then begins with the best one (`__continued__`:
  reno and dno).
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from bon_search.checks import check_count
from bon_search.entry import Entry, Leg, largest, within
from bon_search.errors import SearchError
from bon_search.ledger import Cost

if TYPE_CHECKING:
    from bon_search.table import Single

SPLIT = inspect.Parameter("split", inspect.Parameter.KEYWORD_ONLY, default=None)


def parts_of(name: str) -> tuple[str, ...]:
    """The searches that a name names, one or several.

    Raises:
        SearchError: There is none before or after a "then", or one twice.
    """
    parts = tuple(part.strip() for part in re.split(r"\bthen\b", name))
    if len(parts) > 1 and not all(parts):
        raise SearchError(
            f"{name!r} lacks a search before or after its 'then'; write both, as in 'halving then zero_order'."
        )
    twice = next((part for part in parts if parts.count(part) > 1), None)
    if twice is not None:
        raise SearchError(f"{name!r} runs {twice} twice, which one {twice} of more candidates does; name it once.")
    return parts


def compose(parts: Sequence[Single]) -> Composition:
    """The searches, one after the other."""
    return Composition(" then ".join(part.name for part in parts), tuple(parts))


@dataclass(frozen=True)
class Composition(Entry):
    """Searches that run one after the other.

    Attributes:
        name: Those of the searches, with "then" between them.
        parts: At least two.
    """

    name: str
    parts: tuple[Single, ...]

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        first, *rest = (part.name for part in self.parts)
        return f"{first}, then from its survivors {', then from theirs '.join(rest)}."

    @property
    def formula(self) -> str:
        """What it costs, for people."""
        told = "; ".join(f"{part.name}: {part.formula}" for part in self.parts)
        return f"at most n·K NFE or one candidate of the first, divided by split ({told})"

    @property
    def references(self) -> tuple[str, ...]:
        """The papers of all parts."""
        return tuple(dict.fromkeys(paper for part in self.parts for paper in part.references))

    @property
    def branches(self) -> bool:
        """Whether a part copies particles, which only fresh noise parts."""
        return any(part.branches for part in self.parts)

    @cached_property
    def options(self) -> Mapping[str, inspect.Parameter]:
        """Those of each part as `part.option`, and `split`."""
        own = {f"{part.name}.{name}": told for part in self.parts for name, told in part.options.items()}
        return {**own, "split": SPLIT}

    def whole_name(self, name: str) -> str:
        """An option as `part.option`, however it was written.

        Raises:
            SearchError: No part has it, or several have.
        """
        owners = [part.name for part in self.parts if name in part.options]
        if len(owners) > 1:
            raise SearchError(
                f"{' and '.join(owners)} each have an option {name!r}; say whose it is, as in {owners[0]}.{name}."
            )
        return f"{owners[0]}.{name}" if owners else super().whole_name(name)

    def legs(self, n: int, steps: int, options: Mapping[str, object]) -> tuple[Leg, ...]:
        """The parts, with what each may spend of n·steps NFE.

        Raises:
            SearchError: n, the split or an option of a part is out of range.
        """
        check_count("n", n)
        ends = shares(options.get("split"), len(self.parts))
        legs: list[Leg] = []
        for part, end in zip(self.parts, ends, strict=True):
            left = math.floor(n * steps * end + 1e-9) - sum(leg.cost.nfe for leg in legs)
            legs.append(self._leg(part, left, steps, options, legs, end))
        return tuple(legs)

    def _leg(
        self, part: Single, left: float, steps: int, options: Mapping[str, object], before: Sequence[Leg], end: float
    ) -> Leg:
        own = {name: options[f"{part.name}.{name}"] for name in part.options if f"{part.name}.{name}" in options}
        told = own.get("deviation") is not None or own.get("temperature") is not None
        measured = "deviation" in part.options and not told and bool(before) and before[0].n > 1
        own = {**part.continued, **own} if before and (told or measured) else own
        settings = {**own, "deviation": 1.0} if measured else own  # some number: what it is costs nothing
        ready = self._ready(before, steps, options)

        def known(n: int) -> int:
            return min(part.takes(n, steps, settings), ready)

        def cost(n: int) -> Cost:
            return _without(part.cost(n, steps, settings), known(n), steps)

        n = largest(lambda n: within(cost(n), Cost.at_most(nfe=left)))
        if before and not 0 < cost(n).nfe <= left:
            return Leg(part.run, part.name, 0, own, Cost(), part.batched, end)
        return Leg(part.run, part.name, n, own, cost(n), part.batched, end, known(n), measured)

    def _ready(self, before: Sequence[Leg], steps: int, options: Mapping[str, object]) -> int:
        """How many finished candidates are certain to be there that nothing disturbed; 0 if others may be."""
        run = [(part, leg) for part, leg in zip(self.parts, before, strict=False) if leg.n]
        left = [part.leaves(leg.n, steps, leg.options) for part, leg in run]
        known = [count for count in left if count is not None]
        return max(known, default=0) if len(known) == len(left) else 0


def shares(split: object, parts: int) -> tuple[float, ...]:
    """Where each part ends, as shares of the whole; ascending, the last is 1.

    Args:
        split: The shares of all parts but the last, which has the rest; a number if there are two; even when None.
        parts: How many there are.

    Raises:
        SearchError: Other numbers of shares, or such that leave nothing for the last.
    """
    given = [1 / parts] * (parts - 1) if split is None else list(split) if isinstance(split, tuple | list) else [split]
    numbers = [float(share) for share in given if isinstance(share, int | float) and share > 0]
    if len(numbers) != len(given) or len(numbers) != parts - 1 or sum(numbers) >= 1:
        wanted = "0.5" if parts == 2 else ",".join(["0.3"] * (parts - 1))
        raise SearchError(
            f"split = {split} does not divide a budget between {parts} searches; give the shares of all but the last, "
            f"above 0 and together below 1, such as {wanted}."
        )
    return (*accumulate(numbers), 1.0)


def _without(cost: Cost, candidates: int, steps: int) -> Cost:
    """The cost less that of some finished candidates."""
    off = Cost(nfe=candidates * steps, rewards=candidates, decodes=candidates)
    return Cost(*(getattr(cost, f.name) - getattr(off, f.name) for f in fields(Cost)))
