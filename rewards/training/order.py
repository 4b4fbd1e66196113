"""Which records make up a step: a pure function of (seed, step), so that nothing about the order needs saving.

The data is gone through again and again, in a new order each time, and no step holds a record twice where it need not:
what ends a pass and what begins the next one share a step, so that the next one keeps the former back. Data of less
than two steps has one order for all passes, in which a record is as far from its copies as can be.

Of some steps at once the records are sorted by length, so that those that run together are about equally long, and the
steps are then shuffled. These steps are of one pass, since the copies of a record would come together otherwise; a step
of two passes stands alone.
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
        first, last = self._window(step)
        if first not in self._windows:
            while len(self._windows) > 1:  # this one and the next are asked for by turns
                del self._windows[min(self._windows)]
            self._windows[first] = self._sorted(first, last)
        return self._windows[first][step - first]

    def _window(self, step: int) -> tuple[int, int]:
        """The first step of a step's window, and the one behind the last."""
        count, batch = len(self.lengths), self.batch
        turn = step * batch // count
        begin, end = -(-turn * count // batch), min((turn + 1) * count // batch, self.steps)  # those of one pass
        if step >= end:
            return step, step + 1
        first = step - (step - begin) % _WINDOW
        return first, min(first + _WINDOW, end)

    def _sorted(self, first: int, last: int) -> list[list[int]]:
        """Numbers of the records of each step of a window."""
        records = [self._record(place) for place in range(first * self.batch, last * self.batch)]
        records.sort(key=lambda record: (self.lengths[record], record))
        turns = list(range(last - first))
        Random(f"window-{self.seed}-{first}").shuffle(turns)
        return [records[turn * self.batch : (turn + 1) * self.batch] for turn in turns]

    def _record(self, place: int) -> int:
        """The record at a place of the endless row of shuffled passes through the data."""
        turn, index = divmod(place, len(self.lengths))
        return _pass(self.seed, turn, len(self.lengths), self.batch)[index]


@lru_cache(maxsize=4)
def _pass(seed: int, turn: int, count: int, batch: int) -> list[int]:
    """All records; those that share a step with the end of the pass before are others than are there."""
    if count < 2 * batch:
        return _shuffled(seed, 0, count)
    order, shared = _shuffled(seed, turn, count), turn * count % batch
    ended = set(_shuffled(seed, turn - 1, count)[count - shared :]) if shared else set[int]()
    return sorted(order[:batch], key=ended.__contains__) + order[batch:]  # whose own end stays as it was drawn


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
