"""Which records make up a step: a pure function of (seed, step), so that nothing about the order needs saving.

The data is gone through again and again, in a new order each time. Of some steps at once the records are sorted by
length, so that those that run together are about equally long, and the steps are then shuffled. These steps are no
more than one pass through the data, since the copies of a record would come together otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any

from PIL import Image

from rewards.training.records import Record

_WINDOW = 32  # steps whose records are sorted together, at most


@dataclass(frozen=True)
class Order:
    """The order of a training.

    Attributes:
        lengths: of the records, anything that sorts.
        batch: records in a step.
        steps: of the whole training.
        seed: of the order.
    """

    lengths: Sequence[Any]
    batch: int
    steps: int
    seed: int
    _windows: dict[int, list[list[int]]] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, step: int) -> list[int]:
        """Numbers of the records of a step, by length."""
        window, place = divmod(step, self._wide)
        if window not in self._windows:
            while len(self._windows) > 1:  # this one and the next are asked for by turns
                del self._windows[min(self._windows)]
            self._windows[window] = self._sorted(window)
        return self._windows[window][place]

    @property
    def _wide(self) -> int:
        """Steps of a window."""
        return max(1, min(_WINDOW, len(self.lengths) // self.batch))

    def _sorted(self, window: int) -> list[list[int]]:
        """Numbers of the records of each step of a window."""
        first, last = window * self._wide, min((window + 1) * self._wide, self.steps)
        records = [self._record(place) for place in range(first * self.batch, last * self.batch)]
        records.sort(key=lambda record: (self.lengths[record], record))
        turns = list(range(last - first))
        Random(f"window-{self.seed}-{window}").shuffle(turns)
        return [records[turn * self.batch : (turn + 1) * self.batch] for turn in turns]

    def _record(self, place: int) -> int:
        """The record at a place of the endless row of shuffled passes through the data."""
        turn, index = divmod(place, len(self.lengths))
        return _shuffled(self.seed, turn, len(self.lengths))[index]


@lru_cache(maxsize=4)
def _shuffled(seed: int, turn: int, count: int) -> list[int]:
    order = list(range(count))
    Random(f"turn-{seed}-{turn}").shuffle(order)
    return order


def shares(records: Sequence[int], micro: int, rank: int = 0, processes: int = 1) -> list[list[int]]:
    """One process's part of a step's records, `micro` or fewer at a time.

    All processes get equally many parts, and those that run at one time are about equally long.
    """
    mine = records[rank::processes]
    most = -(-len(records) // processes)
    parts = -(-most // micro)
    return [list(mine[part * len(mine) // parts : (part + 1) * len(mine) // parts]) for part in range(parts)]


def length(record: Record) -> tuple[list[tuple[int, int]], int]:
    """What a record's number of tokens depends on: the sizes of its pictures, and its longer prompt's characters."""
    sizes = []
    for side in record.sides:
        with Image.open(side.image) as image:
            sizes.append(image.size)
    return sorted(sizes, reverse=True), max(len(side.prompt) for side in record.sides)
