"""The journal of a comparison: settings on the first line, then one line for each finished cell.

A cell is on disk as soon as it is measured. A journal is gone on with after any end: what a killed process left half
written is cut off and measured again, nothing else is.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from bon_search.errors import SearchError
from bon_search.files import reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

SCHEMA = 1


@dataclass(frozen=True)
class Key:
    """What a cell is about.

    Attributes:
        search: Specification of the search, such as "smc:strength=3".
        reward: Specification of the reward that chooses.
        prompt: The text.
        seed: Which repetition, from 0.
        budget: NFE allowed.
    """

    search: str
    reward: str
    prompt: str
    seed: int
    budget: int


@dataclass(frozen=True)
class Cell:
    """One search run under one budget: what it found and what it took.

    Attributes:
        key: What was run.
        n: The search's own number, the largest that the budget pays for.
        finished: Candidates that it finished.
        winner: Seed of the best of them.
        target: What the reward that chooses says of the winner.
        held_out: What the judge that took no part says of it.
        nfe: Denoiser evaluations spent.
        rewards: Pictures scored.
        decodes: Latents turned into pictures.
        seconds: Wall time; the judge's is not in it.
        evaluations_per_nfe: Network evaluations that one NFE took.
    """

    key: Key
    n: int
    finished: int
    winner: int
    target: float
    held_out: float
    nfe: float
    rewards: float
    decodes: float
    seconds: float
    evaluations_per_nfe: float

    def as_json(self) -> dict[str, object]:
        """All of it in one flat record."""
        record = asdict(self)
        return {**record.pop("key"), **record}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Cell:
        """Raise KeyError, TypeError or ValueError if the record is not of `as_json`."""
        numbers = {field.name: record[field.name] for field in fields(cls) if field.name != "key"}
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers.values()):
            raise ValueError(numbers)
        key = Key(*(record[field.name] for field in fields(Key)))
        return cls(key, **numbers)


class Journal:
    """Cells by key, and the file that they are appended to; use it as a context.

    Args:
        path: A .jsonl file, new or written by us before.
        settings: All that a cell's numbers depend on beside its key; a journal with others is not gone on with.

    Raises:
        SearchError: Other settings, a file that is no journal, or one that cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self.path = path
        self.cells: dict[Key, Cell] = {}
        head = {"schema": SCHEMA, **json.loads(json.dumps(settings))}  # as it will be read back
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._take_up(head)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, cell: Cell) -> None:
        """Enter a finished cell, at once on disk.

        Raises:
            SearchError: The disk is full or the file has become unwritable; what is written stays.
        """
        self._append(cell.as_json())
        self.cells[cell.key] = cell

    def _take_up(self, head: dict[str, object]) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        lines = content[:whole].splitlines()
        if lines:
            self._read(lines, head)
        elif content.strip() and not content.startswith(b'{"schema": '[: len(content)]):
            raise self._foreign()
        self._file.truncate(whole)
        if not lines:
            self._append(head)

    def _read(self, lines: list[bytes], head: dict[str, object]) -> None:
        try:
            before, *records = [json.loads(line) for line in lines]
            cells = [Cell.from_json(record) for record in records]
            known = before["schema"] == SCHEMA
        except (ValueError, TypeError, KeyError) as error:
            raise self._foreign() from error
        if not known:
            raise self._foreign()
        changed = [name for name in {**before, **head} if before.get(name) != head.get(name)]
        if changed:
            raise SearchError(
                f"{self.path.parent} holds a comparison with other settings ({_told(changed[0], before, head)}), which "
                "stays as it is; give the settings it was begun with, or another folder with --out."
            )
        self.cells = {cell.key: cell for cell in cells}

    def _append(self, record: Mapping[str, object]) -> None:
        start = self._file.seek(0, 2)
        line = f"{json.dumps(record)}\n".encode()
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(start)
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> SearchError:
        return SearchError(
            f"{self.path} cannot be written ({reason(error)}); what is in it stays: free some space, or choose another "
            "folder with --out."
        )

    def _foreign(self) -> SearchError:
        return SearchError(
            f"{self.path} is not a journal of compare-searches and stays as it is; choose another folder with --out."
        )


def _told(name: str, before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """How one setting changed, in a few words."""
    then, here = before.get(name), now.get(name)
    if isinstance(then, dict) and isinstance(here, dict):
        inner = next(key for key in {**then, **here} if then.get(key) != here.get(key))
        return f"{name} {_told(inner, then, here)}"
    return f"{name} {then!r:.60} then, {here!r:.60} now"
