"""What can be started by name, a search or several one after the other: its options, its cost, what a budget starts."""

from __future__ import annotations

import ast
import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bon_search.errors import SearchError
from bon_search.ledger import Cost

if TYPE_CHECKING:
    from bon_search.search import Search

COUNTED = ("nfe", "rewards", "decodes", "backwards")  # what a formula tells of a cost
MOST = 1 << 20  # candidates that a budget may start


class Entry(ABC):
    """What can be started by name.

    Attributes:
        name: What the command line calls it.
    """

    name: str

    @property
    @abstractmethod
    def summary(self) -> str:
        """What it does, in one line."""

    @property
    @abstractmethod
    def formula(self) -> str:
        """What it costs, for people."""

    @property
    @abstractmethod
    def references(self) -> tuple[str, ...]:
        """Its papers."""

    @property
    @abstractmethod
    def branches(self) -> bool:
        """Whether it copies particles, which only fresh noise parts."""

    @property
    @abstractmethod
    def options(self) -> Mapping[str, inspect.Parameter]:
        """What can be set with `-o name=value`."""

    @abstractmethod
    def legs(self, n: int, steps: int, options: Mapping[str, object]) -> tuple[Leg, ...]:
        """The searches that it runs one after the other, for n candidates of `steps` steps; at least one."""

    def cost(self, n: int, steps: int, options: Mapping[str, object]) -> Cost:
        """What n candidates of `steps` steps cost, or cost at most."""
        return sum((leg.cost for leg in self.legs(n, steps, options)), Cost())

    def starts(self, budget: Cost, steps: int, options: Mapping[str, object]) -> int:
        """The most candidates n whose cost stays within the budget; 1 if not even one does.

        Raises:
            SearchError: The budget limits neither NFE nor rewards nor decodes.
        """
        return largest(lambda n: within(self.cost(n, steps, options), budget))

    def whole_name(self, name: str) -> str:
        """An option as it is recorded, however it was written.

        Raises:
            SearchError: There is no such option; the nearest one is named.
        """
        if name in self.options:
            return name
        near = difflib.get_close_matches(name, self.options, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f"; it has {', '.join(self.options) or 'none'}."
        raise SearchError(f"The search {self.name} has no option {name!r}{hint}")

    def checked(self, options: Mapping[str, object]) -> dict[str, object]:
        """The options, each of which the search has, by their whole names.

        Raises:
            SearchError: It has no such option.
        """
        return {self.whole_name(name): value for name, value in options.items()}

    def complete(self, options: Mapping[str, object]) -> dict[str, object]:
        """The options, checked, with all among them that have no default.

        Raises:
            SearchError: It has no such option, or one is missing.
        """
        found = self.checked(options)
        for name, parameter in self.options.items():
            if parameter.default is inspect.Parameter.empty and name not in found:
                raise SearchError(f"The search {self.name} needs its option {name!r}: add -o {name}=VALUE.")
        return found

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


@dataclass(frozen=True)
class Leg:
    """One search of a run, ready to start.

    Attributes:
        run: The search.
        name: What the table calls it.
        n: Candidates; 0 if there is nothing left for it.
        options: What is set of it.
        cost: What it spends, or spends at most.
        batched: Whether it takes a batch size.
        ends: Share of a budget of time after which it ends.
        known: How many of its first candidates are finished ones of the legs before, for which nothing is paid.
        measured: Whether the reward's deviation is that of the first leg's candidates.
    """

    run: Search
    name: str
    n: int
    options: Mapping[str, object]
    cost: Cost
    batched: bool = False
    ends: float = 1.0
    known: int = 0
    measured: bool = False


def within(cost: Cost, budget: Cost) -> bool:
    """Whether a cost stays within a budget, time aside."""
    return all(getattr(cost, name) <= getattr(budget, name) for name in COUNTED)


def largest(fits: Callable[[int], bool]) -> int:
    """The largest n that fits, if all smaller ones do; 1 if not even that does.

    Raises:
        SearchError: Whatever n fits.
    """
    most = 1
    while most < MOST and fits(2 * most):
        most *= 2
    if most == MOST:
        raise SearchError("This budget limits neither NFE nor rewards nor decodes; say how many to start.")
    for bit in reversed(range(most.bit_length() - 1)):
        most += (1 << bit) if fits(most + (1 << bit)) else 0
    return most


def _literal(text: str) -> object:
    try:
        value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float | bool | tuple | list | str | None) else text
