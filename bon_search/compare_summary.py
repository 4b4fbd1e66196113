"""What the cells of a comparison say: quality and cost of every search, and its differences from plain best-of-N.

All differences are between the same prompts and the same noises; the intervals are over prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bon_search.compare_columns import Columns, columns
from bon_search.compare_grid import BASELINE, Grid
from bon_search.compare_journal import Cell, Key
from bon_search.compare_statistics import cost_to_reach, interpolated
from bon_search.errors import SearchError
from rewards.evaluation.bootstrap import Bootstrap, Floats, Interval

COSTS = ("nfe", "seconds")
_TIE = 1e-12  # a sum in another order is still the same mean


@dataclass(frozen=True)
class Point:
    """One search at one budget.

    Attributes:
        search: Its specification.
        budget: NFE allowed.
        n: Its own number.
        nfe: NFE spent, mean.
        seconds: Wall time, mean.
        rewards: Pictures scored, mean.
        quality: Measure → mean.
        gain: Measure → mean difference from best-of-N under the same budget.
        gain_in_time: Measure → mean difference from best-of-N in the same seconds, one of the two interpolated; missing
            where neither curve reaches.
    """

    search: str
    budget: int
    n: int
    nfe: float
    seconds: float
    rewards: float
    quality: Mapping[str, Interval]
    gain: Mapping[str, Interval] = field(default_factory=dict)
    gain_in_time: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Reach:
    """What a search needs for the quality that best-of-N has at a certain budget, relative to what that needs.

    Attributes:
        search: Its specification.
        measure: Which quality.
        cost: "nfe" or "seconds".
        ratio: Infinite if it never gets there.
        at_once: Its least budget already gets there, so that the ratio is at most what it says.
    """

    search: str
    measure: str
    cost: str
    ratio: Interval
    at_once: bool


@dataclass(frozen=True)
class Summary:
    """What a comparison says of searches under one reward.

    Attributes:
        reward: The reward that chose.
        prompts: Those of which every cell is there.
        measures: Ways to read quality, that which counts most first.
        points: By budget, best-of-N first, then in the order given.
        reached: Budget of the best-of-N whose quality is to be reached.
        reaches: Best-of-N first; its own ratio tells how sure the others can be.
        growth: Search → measure → mean difference between its largest and its least budget.
        by_prompt: Search → (P,) held-out scores at the largest budget.
    """

    reward: str
    prompts: tuple[str, ...]
    measures: tuple[str, ...]
    points: tuple[Point, ...]
    reached: int
    reaches: tuple[Reach, ...]
    growth: Mapping[str, Mapping[str, Interval]]
    by_prompt: Mapping[str, tuple[float, ...]]

    @property
    def budgets(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(sorted({point.budget for point in self.points}))

    @property
    def searches(self) -> tuple[str, ...]:
        """Best-of-N first."""
        return tuple(dict.fromkeys(reach.search for reach in self.reaches))

    def at(self, budget: int) -> tuple[Point, ...]:
        """The points of one budget, best-of-N first."""
        return tuple(point for point in self.points if point.budget == budget)

    def curve(self, search: str) -> tuple[Point, ...]:
        """The points of one search, by budget."""
        return tuple(point for point in self.points if point.search == search)


def summarise(
    grid: Grid,
    reward: str,
    cells: Mapping[Key, Cell],
    *,
    passing: float | None = None,
    reach: int | None = None,
    level: float = 0.95,
) -> Summary:
    """What the cells say of the searches under one reward.

    Args:
        grid: What was compared.
        reward: One of its rewards.
        cells: Finished cells; prompts that lack one are left out.
        passing: The judge's score from which on a picture passes; None: there is no such mark.
        reach: Budget of the best-of-N whose quality is to be reached; the largest when None.
        level: Coverage of the intervals.

    Raises:
        SearchError: No prompt is complete, or `reach` is not among the budgets.
    """
    table = columns(grid, reward, cells, passing)
    reached = grid.budgets[-1] if reach is None else reach
    if reached not in grid.budgets:
        raise SearchError(f"The budget to reach is {reached} NFE, which is none of {list(grid.budgets)}; choose one.")
    if not table.prompts:
        raise SearchError("No prompt is complete yet, so there is nothing to compare; let the comparison run on.")
    bootstrap = Bootstrap(len(table.prompts), level=level)
    labels = [contender.label for contender in grid.contenders]
    places = [(label, budget) for budget in grid.budgets for label in labels if (label, budget) in table.values]
    return Summary(
        reward=reward,
        prompts=table.prompts,
        measures=table.measures,
        points=tuple(_point(table, bootstrap, *place) for place in places),
        reached=reached,
        reaches=tuple(
            _reach(table, bootstrap, label, reached, measure, cost)
            for label in labels
            for measure in table.measures
            for cost in COSTS
        ),
        growth={label: _growth(table, bootstrap, label) for label in labels if len(table.budgets(label)) > 1},
        by_prompt={
            label: tuple(table.values[label, budget]["held_out"].tolist())
            for label, budget in places
            if budget == grid.budgets[-1]
        },
    )


def _point(table: Columns, bootstrap: Bootstrap, search: str, budget: int) -> Point:
    own, baseline = table.values[search, budget], table.values[BASELINE, budget]
    gain = {} if search == BASELINE else {m: bootstrap.mean(own[m] - baseline[m]) for m in table.measures}
    return Point(
        search=search,
        budget=budget,
        n=table.starts[search, budget],
        nfe=table.mean(search, budget, "nfe"),
        seconds=table.mean(search, budget, "seconds"),
        rewards=table.mean(search, budget, "rewards"),
        quality={measure: bootstrap.mean(own[measure]) for measure in table.measures},
        gain=gain,
        gain_in_time={} if search == BASELINE else _gain_in_time(table, bootstrap, search, budget),
    )


def _growth(table: Columns, bootstrap: Bootstrap, search: str) -> dict[str, Interval]:
    curves = {measure: table.curve(search, measure) for measure in table.measures}  # (P, C)
    return {measure: bootstrap.mean(curve[:, -1] - curve[:, 0]) for measure, curve in curves.items()}


def _gain_in_time(table: Columns, bootstrap: Bootstrap, search: str, budget: int) -> dict[str, Interval]:
    """At the search's own seconds if the curve of best-of-N reaches them, else at those of best-of-N."""
    own, other = table.mean(search, budget, "seconds"), table.mean(BASELINE, budget, "seconds")
    gains = {}
    for measure in table.measures:
        ours: Floats | None = table.values[search, budget][measure]
        theirs = _in_time(table, BASELINE, measure, own)
        if theirs is None:
            ours, theirs = _in_time(table, search, measure, other), table.values[BASELINE, budget][measure]
        if ours is not None and theirs is not None:
            gains[measure] = bootstrap.mean(ours - theirs)
    return gains


def _in_time(table: Columns, search: str, measure: str, seconds: float) -> Floats | None:
    """(P,) qualities of a search in so many seconds; None where its curve does not reach."""
    return interpolated(table.curve(search, "seconds").mean(axis=0), table.curve(search, measure), seconds)


def _reach(table: Columns, bootstrap: Bootstrap, search: str, reached: int, measure: str, cost: str) -> Reach:
    budgets = table.budgets(search)
    if not budgets:
        never = Interval(np.inf, np.inf, np.inf)
        return Reach(search, measure, cost, never, at_once=False)
    goal, price = (table.values[BASELINE, reached][column] for column in (measure, cost))  # (P,)
    qualities, costs = table.curve(search, measure), table.curve(search, cost)  # (P, C)

    def ratio(shares: Floats) -> Floats:
        needed = cost_to_reach(shares @ costs, shares @ qualities, shares @ goal - _TIE)
        relative: Floats = needed / (shares @ price)
        return relative

    at_once = bool(qualities[:, 0].mean() >= goal.mean() - _TIE)
    return Reach(search, measure, cost, bootstrap.interval(ratio), at_once)
