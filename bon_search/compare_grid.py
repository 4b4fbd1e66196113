"""What is compared: searches × rewards × prompts × seeds × budgets, and which numbers each search gets for a budget.

A search is written as `name` or `name:option=value,option=value`, with the options of the table of searches; `eta`, the
noise that the sampler adds on the way, can be set for any of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from bon_search.compare_journal import Key
from bon_search.errors import SearchError
from bon_search.ledger import Cost
from bon_search.table import Entry, load_search

BASELINE = "best_of_n"
OF_THE_SAMPLER = ("eta",)


@dataclass(frozen=True)
class Contender:
    """A search with its options.

    Attributes:
        label: Its specification, as the user wrote it, with a hash of any file that an option names.
        entry: The search.
        options: Of the search.
        call: Of the sampler.
    """

    label: str
    entry: Entry
    options: Mapping[str, object] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, spec: str) -> Contender:
        """The search that a specification such as "smc:strength=3,looks=0.25,0.5" names.

        Raises:
            SearchError: No such search or option, or a value that is none for it.
        """
        name, _, rest = spec.partition(":")
        entry = load_search(name.strip())
        settings = [part for part in re.split(r",(?=\s*[\w.-]+\s*=)", rest) if part.strip()]
        own = [part for part in settings if part.partition("=")[0].strip() not in OF_THE_SAMPLER]
        call = {part.partition("=")[0].strip(): _number(part, spec) for part in settings if part not in own}
        options = entry.parse(own)
        return cls(spec.strip() + _contents(options), entry, options, call)

    @property
    def nested(self) -> bool:
        """Whether a run of n candidates begins with the run of any smaller n."""
        return self.entry.name == BASELINE

    def starts(self, budget: int, steps: int) -> int | None:
        """The largest n whose cost stays within the budget in NFE; None if not even one candidate's does."""
        if self.entry.cost(1, steps, self.options).nfe > budget:
            return None
        return self.entry.starts(Cost.at_most(nfe=budget), steps, self.options)


@dataclass(frozen=True)
class Grid:
    """All that is measured.

    Attributes:
        contenders: Searches; best-of-N first.
        rewards: Specifications of the rewards that choose.
        prompts: Distinct texts.
        budgets: NFE, ascending.
        seeds: Repetitions for each prompt.
        steps: K.
        call: Of the sampler, for every search.
    """

    contenders: tuple[Contender, ...]
    rewards: tuple[str, ...]
    prompts: tuple[str, ...]
    budgets: tuple[int, ...]
    seeds: int
    steps: int
    call: Mapping[str, Any] = field(default_factory=dict)

    def complete(self, cells: Container[Key]) -> tuple[str, ...]:
        """The prompts of which every cell is there."""
        lacking = {key.prompt for key, _ in self.cells() if key not in cells}
        return tuple(prompt for prompt in self.prompts if prompt not in lacking)

    @property
    def nfe(self) -> int:
        """What all cells may spend at most."""
        return sum(key.budget for key, _ in self.cells())

    def cells(self) -> Iterator[tuple[Key, Contender]]:
        """All cells in the order of measurement.

        A prompt is complete before the next begins, so that an interrupted comparison compares what it has; the
        searches take turns, so that all see the same state of the machine.
        """
        affordable = [
            (budget, contender)
            for budget in self.budgets
            for contender in self.contenders
            if contender.starts(budget, self.steps) is not None
        ]
        for prompt, seed, reward in product(self.prompts, range(self.seeds), self.rewards):
            for budget, contender in affordable:
                yield Key(contender.label, reward, prompt, seed, budget), contender


def contenders(searches: Sequence[str]) -> tuple[Contender, ...]:
    """The searches that specifications name, each once, after plain best-of-N.

    Raises:
        SearchError: An unknown search or option, or a value that is none for it.
    """
    return tuple(Contender.parse(spec) for spec in dict.fromkeys([BASELINE, *(spec.strip() for spec in searches)]))


def make_grid(
    searches: Sequence[str],
    rewards: Sequence[str],
    prompts: Sequence[str],
    budgets: Sequence[int],
    *,
    seeds: int = 1,
    steps: int,
    call: Mapping[str, Any] | None = None,
) -> Grid:
    """A grid with plain best-of-N in it, each thing once.

    Args:
        searches: Specifications; best-of-N is added where it is missing.
        rewards: Specifications.
        prompts: Texts.
        budgets: NFE.
        seeds: Repetitions for each prompt.
        steps: K.
        call: Arguments of the sampler's call, such as guidance_scale, for every search.

    Raises:
        SearchError: An unknown search or option, nothing to compare, or a budget that pays for no candidate.
    """
    if not (rewards and prompts and budgets) or seeds < 1:
        raise SearchError("A comparison needs a reward, a prompt, a budget and a seed; give at least one of each.")
    least = min(budgets)
    if least < steps:
        raise SearchError(
            f"A budget of {least} NFE does not pay for one candidate of {steps} steps; give at least {steps}, or fewer "
            "--steps."
        )
    return Grid(
        contenders=contenders(searches),
        rewards=tuple(dict.fromkeys(rewards)),
        prompts=tuple(dict.fromkeys(prompts)),
        budgets=tuple(sorted(set(budgets))),
        seeds=seeds,
        steps=steps,
        call=call or {},
    )


def _contents(options: Mapping[str, object]) -> str:
    """What sets a search apart whose options name a file, such as a schedule, from one with another such file."""
    files = [Path(value) for value in options.values() if isinstance(value, str) and Path(value).is_file()]
    return "".join(f" ({hashlib.sha256(file.read_bytes()).hexdigest()[:8]})" for file in files)


def _number(setting: str, spec: str) -> float:
    name, _, text = setting.partition("=")
    try:
        return float(text)
    except ValueError as error:
        raise SearchError(f"{name.strip()} in {spec!r} is a number, but got {text.strip()!r}; write eta=1.") from error
