"""The cells of a comparison as columns over prompts, each entry the mean over the seeds of a prompt.

Quality is read off a winner in up to three ways:

    passes     whether the judge's score reaches a mark
    held_out   what the judge says, which took no part
    target     what the reward that chose it says
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bon_search.compare_grid import Grid
from bon_search.compare_journal import Cell, Key
from rewards.evaluation.bootstrap import Floats

SPENT = ("nfe", "seconds", "rewards")


@dataclass(frozen=True, eq=False)
class Columns:
    """P complete prompts of one reward.

    Attributes:
        prompts: (P,) those of which every cell is there.
        measures: Ways to read quality, that which counts most first.
        values: (search, budget) → column name → (P,); the names are the measures, "nfe", "seconds" and "rewards".
        starts: (search, budget) → the search's own n.
    """

    prompts: tuple[str, ...]
    measures: tuple[str, ...]
    values: Mapping[tuple[str, int], Mapping[str, Floats]]
    starts: Mapping[tuple[str, int], int]

    def budgets(self, search: str) -> list[int]:
        """Those under which a search was run, ascending."""
        return sorted(budget for label, budget in self.values if label == search)

    def curve(self, search: str, column: str) -> Floats:
        """(P, C) over the budgets of a search."""
        return np.stack([self.values[search, budget][column] for budget in self.budgets(search)], axis=1)

    def mean(self, search: str, budget: int, column: str) -> float:
        """The mean over prompts."""
        return float(self.values[search, budget][column].mean())


def columns(grid: Grid, reward: str, cells: Mapping[Key, Cell], passing: float | None) -> Columns:
    """The columns of one reward of a grid; prompts that lack a cell are left out.

    Args:
        grid: What was compared.
        reward: One of its rewards.
        cells: Finished cells.
        passing: The judge's score from which on a picture passes; None: there is no such mark.
    """
    complete = grid.complete(cells)
    whole = [cells[key] for key, _ in grid.cells() if key.reward == reward and key.prompt in complete]
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in whole:  # in the order of the grid: a prompt's seeds lie side by side
        groups.setdefault((cell.key.search, cell.key.budget), []).append(cell)
    measures = _measures(passing)
    readings = measures | {name: _attribute(name) for name in SPENT}
    return Columns(
        prompts=complete,
        measures=tuple(measures),
        values={
            place: {
                name: _over_seeds([reading(cell) for cell in group], grid.seeds) for name, reading in readings.items()
            }
            for place, group in groups.items()
        },
        starts={place: group[0].n for place, group in groups.items()},
    )


def _measures(passing: float | None) -> dict[str, Callable[[Cell], float]]:
    plain = {name: _attribute(name) for name in ("held_out", "target")}
    return plain if passing is None else {"passes": lambda cell: float(cell.held_out >= passing), **plain}


def _attribute(name: str) -> Callable[[Cell], float]:
    return lambda cell: float(getattr(cell, name))


def _over_seeds(values: list[float], seeds: int) -> Floats:
    means: Floats = np.array(values, dtype=np.float64).reshape(-1, seeds).mean(axis=1)
    return means
