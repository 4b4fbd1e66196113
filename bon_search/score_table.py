"""The table of scores: a CSV or JSONL file that grows row by row and can be taken up again after any end.

A row is on disk as soon as it is made. What a killed process left behind half written is cut off again, and nothing
else of an existing table is ever changed, but by `replace`. Of two processes with one table the second is refused.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

from bon_search.errors import SearchError
from bon_search.files import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from io import FileIO
    from pathlib import Path

Key: TypeAlias = tuple[str, ...]
FORMATS = (".csv", ".jsonl")
_ERRORS = "surrogateescape"  # the name of a file need not be UTF-8; its bytes are kept


@dataclass(frozen=True)
class Entry:
    """What was judged by what.

    Attributes:
        image: Path of the picture as it was asked for.
        prompt: What it should show.
        reward: Specification of the reward.
        revision: Content hash of the reward's weights; empty if it has none.
        sha256: Of the picture's file.
    """

    image: str
    prompt: str
    reward: str
    revision: str
    sha256: str

    @property
    def key(self) -> Key:
        """What makes two rows the same: the file, its content, the prompt and the reward with its weights."""
        return (os.path.abspath(self.image), self.sha256, self.prompt, self.reward, self.revision)  # noqa: PTH100

    def scored(self, score: float) -> Row:
        """The same with a score."""
        return Row(**_texts(vars(self)), score=score)


@dataclass(frozen=True)
class Row(Entry):
    """One score; higher is better. A reward that only compares gives it relative to the pictures of one prompt."""

    score: float

    @classmethod
    def read(cls, record: dict[str, Any]) -> Row:
        """The row in a record of a table; anything else is a `KeyError`, `TypeError` or `ValueError`."""
        return cls(**_texts(record), score=_finite(record["score"]))


@dataclass(frozen=True)
class Outputs(Entry):
    """What the head of a reward that only compares gave for a picture: d numbers, from which all scores follow."""

    outputs: tuple[float, ...]

    @classmethod
    def read(cls, record: dict[str, Any]) -> Outputs:
        """As of `Row`."""
        return cls(**_texts(record), outputs=tuple(_finite(value) for value in record["outputs"]))


R = TypeVar("R", Row, Outputs)
COLUMNS = tuple(field.name for field in fields(Row))


class Table(Generic[R]):
    """Rows by key, and the file that they are written to; use it as a context.

    Args:
        path: A .csv or .jsonl file, new or written by us before; None keeps the rows in memory only.
        kind: What a row is; `Outputs` in a .jsonl only.

    Raises:
        SearchError: The file has another ending or content, cannot be written, or another process writes it.
    """

    def __init__(self, path: Path | None, kind: type[R]) -> None:
        self.path = path
        self.rows: dict[Key, R] = {}
        self._kind: type[R] = kind
        self._columns = tuple(field.name for field in fields(kind))
        if path is None:
            return
        if path.suffix.lower() not in FORMATS:
            raise SearchError(f"{path} ends neither in .csv nor in .jsonl; choose one of the two for --out.")
        self._csv = path.suffix.lower() == ".csv"
        self._made = not path.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _opened(path)
        except OSError as error:
            raise SearchError(f"{path} cannot be written ({reason(error)}); choose another file with --out.") from error
        try:
            self._take_up(path)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.path is None:
            return
        self._file.close()
        if self._made and not self.rows:
            self.path.unlink(missing_ok=True)

    def add(self, row: R) -> None:
        """Enter a row, at once on disk; a row that is there already is not written again.

        Raises:
            SearchError: The disk is full or the file has become unwritable; what is written stays.
        """
        if row.key in self.rows:
            return
        if self.path is not None:
            first = self._csv and not self.rows and self._file.tell() == 0
            self._write((self._line(list(self._columns)) if first else b"") + self._encoded(row), self.path)
        self.rows[row.key] = row

    def replace(self, rows: Sequence[R], superseded: Callable[[R], bool]) -> None:
        """Put `rows` in the place of all that are `superseded`; the file changes as a whole, or not at all.

        Raises:
            SearchError: The disk is full or the folder has become unwritable; the table stays as it was.
        """
        kept: list[R] = [row for row in self.rows.values() if not superseded(row)]
        now: dict[Key, R] = {row.key: row for row in kept}
        now.update((row.key, row) for row in rows)
        if self.path is None:
            self.rows = now
            return
        lines = [self._line(list(self._columns))] * self._csv + [self._encoded(row) for row in now.values()]
        part = self.path.with_name(self.path.name + ".part")
        try:
            part.write_bytes(b"".join(lines))
            new = _opened(part)
            new.seek(0, os.SEEK_END)
            part.replace(self.path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise SearchError(
                f"{self.path} cannot be written ({reason(error)}) and stays as it was: free some space and give the "
                "same command again; nothing is scored twice."
            ) from error
        self._file.close()
        self._file, self.rows = new, now

    def _take_up(self, path: Path) -> None:
        """Read the rows there are; cut off a last one that is only half there."""
        if not path.is_file():
            raise SearchError(f"{path} is no ordinary file, so it cannot be taken up again; choose another with --out.")
        self._file.seek(0)
        content = self._file.read()
        whole = _complete(content, quoted=self._csv)
        for row in self._rows(content[:whole].decode(errors=_ERRORS), path) if whole else ():
            self.rows[row.key] = row
        if content[whole:].strip() and not (whole or self._ours(content)):
            raise self._foreign(path)
        self._file.truncate(whole)
        self._file.seek(whole)

    def _rows(self, text: str, path: Path) -> list[R]:
        try:
            if self._csv:
                reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
                if tuple(reader.fieldnames or ()) != self._columns:
                    raise self._foreign(path)
                return [self._row(record) for record in reader]
            return [self._row(json.loads(line)) for line in text.split("\n") if line.strip()]
        except (csv.Error, KeyError, TypeError, AttributeError) as error:
            raise self._foreign(path) from error
        except ValueError as error:
            raise error if isinstance(error, SearchError) else self._foreign(path) from error

    def _row(self, record: dict[str, Any]) -> R:
        if set(record) != set(self._columns):
            raise KeyError(*set(record) ^ set(self._columns))
        row: R = self._kind.read(record)
        return row

    def _ours(self, beginning: bytes) -> bool:
        """Whether a file without one complete line is the beginning of a table of ours."""
        start = ",".join(self._columns) if self._csv else '{"image": '
        return start.encode().startswith(beginning[: len(start)])

    def _foreign(self, path: Path) -> SearchError:
        return SearchError(
            f"{path} is not a table of score-images (columns {', '.join(self._columns)}) and stays as it is; choose "
            "another file with --out."
        )

    def _encoded(self, row: R) -> bytes:
        if self._csv:
            return self._line([*asdict(row).values()])
        return f"{as_json_line(asdict(row))}\n".encode()

    def _line(self, values: list[object]) -> bytes:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerow(values)
        return text.getvalue().encode(errors=_ERRORS)

    def _write(self, line: bytes, path: Path) -> None:
        start = self._file.tell()
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(start)
            raise SearchError(
                f"{path} cannot be written ({reason(error)}); its {len(self.rows)} rows stay: free some space and give "
                "the same command again, it goes on from there."
            ) from error


def as_json_line(record: dict[str, object]) -> str:
    """A record as one line of JSON in valid UTF-8; the name of a file that is not UTF-8 is escaped."""
    line = json.dumps(record, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(record)
    return line


def _complete(content: bytes, *, quoted: bool) -> int:
    """Where the last complete line ends; in a CSV a line break within quotes ends none."""
    end = position = quotes = 0
    for line in content.splitlines(keepends=True):
        position += len(line)
        quotes += line.count(b'"') if quoted else 0
        if quotes % 2 == 0 and line.endswith(b"\n"):
            end = position
    return end


def _texts(record: dict[str, Any]) -> dict[str, str]:
    return {name: str(record[name]) for name in (field.name for field in fields(Entry))}


def _finite(value: Any) -> float:  # noqa: ANN401  what a record holds
    number = float(value)
    if not math.isfinite(number):
        raise TypeError(number)
    return number


def _opened(path: Path) -> FileIO:
    """The file, locked; once more if it was replaced or removed before the lock was ours."""
    while True:
        file = path.open("a+b", buffering=0)
        try:
            _lock(file, path)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: FileIO, path: Path) -> None:
    """Keep other processes out as long as the file is open, where the system has such locks."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SearchError(
            f"{path} is being written by another score-images; wait until it is done, or choose another file with "
            "--out."
        ) from error
    except OSError:  # a file system without locks
        return
