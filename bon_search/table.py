"""The table of searches: a name becomes the search, its options, its cost formula and its papers.

A search is a function of one module, which is imported only when it is asked for. The module holds beside it

    cost(n, steps, **options) -> Cost     what n candidates of K steps cost, or cost at most
    __cost__                              the same as a formula for people
    __references__                        the papers, such as "arXiv:2501.09732"
    __branches__ = True                   if it copies particles on the way, which only fresh noise parts
    leaves(n, steps, **options) -> int    how many it finishes, if all of them go from their first noise to the end as
                                          they are
    takes(n, steps, **options) -> int     how many of its first candidates it takes to the end without a look: another
                                          search's finished ones stand in for them, unpaid (`bon_search.composition`)
    __continued__                         options that suit it where it begins with another's survivors and knows the
                                          reward's deviation, such as {"start": 1}

or, if it holds several searches, `<name>_cost` where they differ. Another package adds one with an entry point:

    [project.entry-points."bon_search.searches"]
    my_search = "my_package.my_search"
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from bon_search.entry import MOST, Entry, Leg
from bon_search.errors import SearchError

if TYPE_CHECKING:
    from types import ModuleType

    from bon_search.ledger import Cost
    from bon_search.search import Search

__all__ = ["MOST", "Entry", "Single", "load_search", "search_names"]

GROUP = "bon_search.searches"
BUILT_IN = {
    "best_of_n": "bon_search.searches.best_of_n",
    "best_of_n_until": "bon_search.searches.stopping",
    "halving": "bon_search.searches.halving",
    "draft": "bon_search.searches.draft",
    "pandora": "bon_search.searches.pandora",
    "smc": "bon_search.searches.smc",
    "fk": "bon_search.searches.presets",
    "das": "bon_search.searches.presets",
    "svdd": "bon_search.searches.svdd",
    "code": "bon_search.searches.code",
    "beam": "bon_search.searches.beam",
    "rbf": "bon_search.searches.rbf",
    "bfs": "bon_search.searches.bfs",
    "dfs": "bon_search.searches.dfs",
    "zero_order": "bon_search.searches.zero_order",
    "search_over_paths": "bon_search.searches.paths",
    "epsilon_greedy": "bon_search.searches.epsilon_greedy",
    "evolutionary": "bon_search.searches.evolutionary",
    "reno": "bon_search.searches.reno",
    "dno": "bon_search.searches.dno",
    "das_gradient": "bon_search.searches.das_gradient",
    "psi": "bon_search.searches.psi",
}
SET_BY_THE_RUN = frozenset({"sampler", "critic", "n", "seed", "batch_size"})


@dataclass(frozen=True)
class Single(Entry):
    """One search of the table.

    Attributes:
        name: What the command line calls it.
        module: Where it is defined.
    """

    name: str
    module: ModuleType

    @cached_property
    def run(self) -> Search:
        """The search itself."""
        search: Search = getattr(self.module, self.name)
        return search

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return (inspect.getdoc(self.run) or "").partition("\n")[0]

    @property
    def formula(self) -> str:
        """What it costs, for people."""
        return str(getattr(self.module, f"__{self.name}_cost__", getattr(self.module, "__cost__", "")))

    @property
    def references(self) -> tuple[str, ...]:
        """Its papers."""
        return tuple(getattr(self.module, "__references__", ()))

    @property
    def branches(self) -> bool:
        """Whether it copies particles, which only fresh noise parts (`__branches__`)."""
        return bool(getattr(self.module, "__branches__", False))

    @cached_property
    def options(self) -> Mapping[str, inspect.Parameter]:
        """Its keyword arguments but those that every run sets."""
        parameters = inspect.signature(self.run).parameters
        return {name: p for name, p in parameters.items() if name not in SET_BY_THE_RUN}

    @property
    def continued(self) -> Mapping[str, object]:
        """Options that suit it from survivors on (`__continued__`)."""
        return dict(getattr(self.module, "__continued__", {}))

    @property
    def batched(self) -> bool:
        """Whether it makes its candidates batch by batch, independently of each other."""
        return "batch_size" in inspect.signature(self.run).parameters

    def cost(self, n: int, steps: int, options: Mapping[str, object]) -> Cost:
        """What n candidates of `steps` steps cost, or cost at most."""
        formula: Callable[..., Cost] = getattr(self.module, f"{self.name}_cost", None) or self.module.cost
        return formula(n, steps, **_known(formula, options))

    def legs(self, n: int, steps: int, options: Mapping[str, object]) -> tuple[Leg]:
        """Itself."""
        return (Leg(self.run, self.name, n, options, self.cost(n, steps, options), self.batched),)

    def leaves(self, n: int, steps: int, options: Mapping[str, object]) -> int | None:
        """How many candidates it finishes undisturbed; None if that is not known, or others are among them."""
        return self._count("leaves", n, steps, options)

    def takes(self, n: int, steps: int, options: Mapping[str, object]) -> int:
        """How many of its first candidates another search's finished ones can stand in for."""
        return self._count("takes", n, steps, options) or 0

    def _count(self, name: str, n: int, steps: int, options: Mapping[str, object]) -> int | None:
        told: Callable[..., int] | None = getattr(self.module, name, None)
        return None if told is None else told(n, steps, **_known(told, options))


def load_search(name: str) -> Entry:
    """The search of that name, or several one after the other: "halving then zero_order".

    Raises:
        SearchError: There is none; the nearest one is named.
    """
    from bon_search.composition import compose, parts_of  # which is made of searches of this table

    parts = parts_of(name)
    return compose([_single(part) for part in parts]) if len(parts) > 1 else _single(name)


def _single(name: str) -> Single:
    targets = _targets()
    if name not in targets:
        near = difflib.get_close_matches(name, targets, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(targets))}."
        raise SearchError(f"Unknown search {name!r}{hint}")
    try:
        entry = Single(name, import_module(targets[name]))
        entry.run  # noqa: B018  another package may name a module without it
    except (ImportError, AttributeError) as error:
        raise SearchError(f"The search {name!r} cannot be imported ({error}); look at the package it is in.") from error
    return entry


def search_names() -> tuple[str, ...]:
    """All names, best-of-N first."""
    return tuple(_targets())


@cache
def _targets() -> dict[str, str]:
    return BUILT_IN | {entry.name: entry.value for entry in entry_points(group=GROUP) if entry.name not in BUILT_IN}


def _known(formula: Callable[..., object], options: Mapping[str, object]) -> dict[str, Any]:
    """The options that a formula depends on."""
    parameters = inspect.signature(formula).parameters
    return {name: value for name, value in options.items() if name in parameters}
