"""The table of searches: a name becomes the search, its options, its cost formula and its papers.

A search is a function of one module, which is imported only when it is asked for. The module holds beside it

    cost(n, steps, **options) -> Cost     what n candidates of K steps cost, or cost at most
    __cost__                              the same as a formula for people
    __references__                        the papers, such as "arXiv:2501.09732"
    __branches__ = True                   if it copies particles on the way, which only fresh noise parts

or, if it holds several searches, `<name>_cost` where they differ. Another package adds one with an entry point:

    [project.entry-points."bon_search.searches"]
    my_search = "my_package.my_search"
"""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from bon_search.errors import SearchError
from bon_search.ledger import Cost

if TYPE_CHECKING:
    from types import ModuleType

    from bon_search.search import Search

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
COUNTED = ("nfe", "rewards", "decodes", "backwards")  # what a formula tells of a cost
MOST = 1 << 20  # candidates that a budget may start


@dataclass(frozen=True)
class Entry:
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
        """What can be set with `-o name=value`: its keyword arguments but those that every run sets."""
        parameters = inspect.signature(self.run).parameters
        return {name: p for name, p in parameters.items() if name not in SET_BY_THE_RUN}

    @property
    def batched(self) -> bool:
        """Whether it makes its candidates batch by batch, independently of each other."""
        return "batch_size" in inspect.signature(self.run).parameters

    def cost(self, n: int, steps: int, options: Mapping[str, object]) -> Cost:
        """What n candidates of `steps` steps cost, or cost at most."""
        formula: Callable[..., Cost] = getattr(self.module, f"{self.name}_cost", None) or self.module.cost
        known = inspect.signature(formula).parameters
        return formula(n, steps, **{name: value for name, value in options.items() if name in known})

    def starts(self, budget: Cost, steps: int, options: Mapping[str, object]) -> int:
        """The most candidates n whose cost stays within the budget; 1 if not even one does.

        Raises:
            SearchError: The budget limits neither NFE nor rewards nor decodes.
        """

        def fits(n: int) -> bool:
            cost = self.cost(n, steps, options)
            return all(getattr(cost, name) <= getattr(budget, name) for name in COUNTED)

        most = 1
        while most < MOST and fits(2 * most):
            most *= 2
        if most == MOST:
            raise SearchError("This budget limits neither NFE nor rewards nor decodes; say how many to start.")
        for bit in reversed(range(most.bit_length() - 1)):
            most += (1 << bit) if fits(most + (1 << bit)) else 0
        return most

    def checked(self, options: Mapping[str, object]) -> dict[str, object]:
        """The options, each of which the search has.

        Raises:
            SearchError: It has no such option; the nearest one is named.
        """
        for name in options:
            if name not in self.options:
                near = difflib.get_close_matches(name, self.options, n=1)
                hint = f": did you mean {near[0]!r}?" if near else f"; it has {', '.join(self.options) or 'none'}."
                raise SearchError(f"The search {self.name} has no option {name!r}{hint}")
        return dict(options)

    def complete(self, options: Mapping[str, object]) -> dict[str, object]:
        """The options, checked, with all among them that have no default.

        Raises:
            SearchError: It has no such option, or one is missing.
        """
        for name, parameter in self.options.items():
            if parameter.default is inspect.Parameter.empty and name not in options:
                raise SearchError(f"The search {self.name} needs its option {name!r}: add -o {name}=VALUE.")
        return self.checked(options)

    def parse(self, settings: Sequence[str]) -> dict[str, object]:
        """Options from the command line, each `name=value`.

        A value is a number, True, False, None or a list such as 0.25,0.5; anything else is text.

        Raises:
            SearchError: It has no such option, or the value is none for it.
        """
        options: dict[str, object] = {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals:
                raise SearchError(f"-o {setting} sets nothing; write an option and its value, as in -o name=value.")
            options |= self.checked({name.strip().replace("-", "_"): text.strip()})
        return {name: self._value(name, text) for name, text in self.complete(options).items()}

    def _value(self, name: str, text: Any) -> object:  # noqa: ANN401
        default = self.options[name].default
        value = _literal(text)
        if isinstance(default, float) and type(value) is int:
            return float(value)
        if default is None or default is inspect.Parameter.empty or isinstance(default, tuple):
            return value
        if type(value) is not type(default):
            kind = {bool: "True or False", int: "a whole number", float: "a number", str: "a word"}.get(type(default))
            raise SearchError(f"The option {name} of {self.name} is {kind}, such as {default}, but got {text!r}.")
        return value


def load_search(name: str) -> Entry:
    """The search of that name.

    Raises:
        SearchError: There is none; the nearest one is named.
    """
    targets = _targets()
    if name not in targets:
        near = difflib.get_close_matches(name, targets, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(targets))}."
        raise SearchError(f"Unknown search {name!r}{hint}")
    try:
        entry = Entry(name, import_module(targets[name]))
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


def _literal(text: str) -> object:
    try:
        value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float | bool | tuple | list | str | None) else text
