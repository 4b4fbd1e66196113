"""The table of scores: a CSV or JSONL file that grows row by row and can be taken up again after any end.

A row is on disk as soon as it is made. What a killed process left behind half written is cut off again, and nothing
else of an existing table is ever changed.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Self, TypeAlias

from bon_search.errors import SearchError
from bon_search.files import reason

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

Key: TypeAlias = tuple[str, ...]
FORMATS = (".csv", ".jsonl")
_ERRORS = "surrogateescape"  # the name of a file need not be UTF-8; its bytes are kept


@dataclass(frozen=True)
class Row:
    """One score.

    Attributes:
        image: Path of the picture as it was asked for.
        prompt: What it should show.
        reward: Specification of the reward.
        revision: Content hash of the reward's weights; empty if it has none.
        sha256: Of the picture's file.
        score: Higher is better.
    """

    image: str
    prompt: str
    reward: str
    revision: str
    sha256: str
    score: float

    @property
    def key(self) -> Key:
        """What makes two rows the same: the file, its content, the prompt and the reward with its weights."""
        return (os.path.abspath(self.image), self.sha256, self.prompt, self.reward, self.revision)  # noqa: PTH100


COLUMNS = tuple(field.name for field in fields(Row))


class Table:
    """Rows by key, and the file that they are written to; use it as a context.

    Args:
        path: A .csv or .jsonl file, new or written by us before; None keeps the rows in memory only.

    Raises:
        SearchError: The file has another ending or content, or cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: dict[Key, Row] = {}
        if path is None:
            return
        if path.suffix.lower() not in FORMATS:
            raise SearchError(f"{path} ends neither in .csv nor in .jsonl; choose one of the two for --out.")
        self._csv = path.suffix.lower() == ".csv"
        self._made = not path.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise SearchError(f"{path} cannot be written ({reason(error)}); choose another file with --out.") from error
        try:
            self._take_up(path)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is None:
            return
        self._file.close()
        if self._made and not self.rows:
            self.path.unlink(missing_ok=True)

    def add(self, row: Row) -> None:
        """Enter a row, at once on disk; a row that is there already is not written again.

        Raises:
            SearchError: The disk is full or the file has become unwritable; what is written stays.
        """
        if row.key in self.rows:
            return
        if self.path is not None:
            first = self._csv and not self.rows and self._file.tell() == 0
            self._write((self._line(list(COLUMNS)) if first else b"") + self._encoded(row), self.path)
        self.rows[row.key] = row

    def _take_up(self, path: Path) -> None:
        """Read the rows there are; cut off a last one that is only half there."""
        if not path.is_file():
            raise SearchError(f"{path} is no ordinary file, so it cannot be taken up again; choose another with --out.")
        self._file.seek(0)
        content = self._file.read()
        whole = _complete(content, quoted=self._csv)
        for row in _rows(content[:whole].decode(errors=_ERRORS), path) if whole else ():
            self.rows[row.key] = row
        if content[whole:].strip() and not (whole or _ours(content, self._csv)):
            raise _foreign(path)
        self._file.truncate(whole)
        self._file.seek(whole)

    def _encoded(self, row: Row) -> bytes:
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


def _ours(beginning: bytes, as_csv: bool) -> bool:
    """Whether a file without one complete line is the beginning of a table of ours."""
    start = ",".join(COLUMNS) if as_csv else '{"image": '
    return start.encode().startswith(beginning[: len(start)])


def _rows(text: str, path: Path) -> list[Row]:
    try:
        if path.suffix.lower() == ".csv":
            reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise _foreign(path)
            return [_row(record) for record in reader]
        return [_row(json.loads(line)) for line in text.split("\n") if line.strip()]
    except (csv.Error, KeyError, TypeError, AttributeError) as error:
        raise _foreign(path) from error
    except ValueError as error:
        raise error if isinstance(error, SearchError) else _foreign(path) from error


def _row(record: dict[str, str]) -> Row:
    if set(record) != set(COLUMNS):
        raise KeyError(*set(record) ^ set(COLUMNS))
    score = float(record["score"])
    if not math.isfinite(score):
        raise TypeError(score)
    return Row(**{**{name: str(record[name]) for name in COLUMNS[:-1]}, "score": score})  # type: ignore[arg-type]


def _foreign(path: Path) -> SearchError:
    return SearchError(
        f"{path} is not a table of score-images (columns {', '.join(COLUMNS)}) and stays as it is; choose another file "
        "with --out."
    )
