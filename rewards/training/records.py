"""Records of preference: the official JSON, JSON lines, CSV and folders of `datasets`, all with the same fields.

    pair        chosen_path, reject_path, prompt (one text, or a list of the chosen and the rejected side's);
                in CSV prompt_chosen and prompt_rejected may stand for the list; margin if it has one of its own
    picture     path, label (0 to 1), prompt

Other fields (prompt_id, c_rate, …) may stand beside them. What cannot be read becomes a `Fault` with its line, so that
one look finds them all.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from rewards.errors import RewardError

Row: TypeAlias = Mapping[str, object]
_PATHS = ("chosen_path", "reject_path", "path")


@dataclass(frozen=True)
class Side:
    """One picture with the prompt that it is judged against."""

    image: Path
    prompt: str


@dataclass(frozen=True)
class Pair:
    """Two sides of which one is preferred.

    Attributes:
        chosen, rejected: the two sides; their prompts may differ.
        margin: by how much the chosen side should be ahead at least, in the head's unit; None where nothing is said.
        where: file and line.
    """

    chosen: Side
    rejected: Side
    margin: float | None = None
    where: str = ""

    @property
    def sides(self) -> tuple[Side, ...]:
        """Chosen, rejected."""
        return self.chosen, self.rejected


@dataclass(frozen=True)
class Single:
    """One side with a label from 0 (bad) to 1 (good)."""

    side: Side
    label: float
    where: str = ""

    @property
    def sides(self) -> tuple[Side, ...]:
        """The one side."""
        return (self.side,)


Record: TypeAlias = Pair | Single


@dataclass(frozen=True)
class Fault:
    """What is wrong with the record at `where`."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def read_records(path: Path, images: Path | None = None) -> tuple[list[Record], list[Fault]]:
    """All records of a file or folder, and the faults of the lines that are none.

    Args:
        path: .json, .jsonl or .csv, or a folder that `datasets` wrote.
        images: where relative paths of pictures begin; the folder of `path` if None.

    Raises:
        RewardError: there is no such file, it is another kind, or `datasets` is needed and not installed.
    """
    records: list[Record] = []
    faults: list[Fault] = []
    for where, row in rows(path):
        read = row if isinstance(row, Fault) else record_of(row, where, images or path.parent)
        if isinstance(read, Fault):
            faults.append(read)
        else:
            records.append(read)
    return records, faults


def rows(path: Path) -> Iterator[tuple[str, Row | Fault]]:
    """Place and fields of every row of a file or folder, or what is wrong with that line.

    Raises:
        RewardError: as of `read_records`.
    """
    if path.is_dir():
        from rewards.training.arrow import arrow_rows

        return arrow_rows(path)
    if not path.exists():
        raise RewardError(f"There is no {path}; expected a .json, .jsonl or .csv file of records, or a folder.")
    readers = {".json": _json, ".jsonl": _jsonl, ".csv": _csv}
    if path.suffix.lower() not in readers:
        raise RewardError(f"Got the data {str(path)!r}; expected a .json, .jsonl or .csv file, or a folder.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RewardError(f"{path} cannot be read ({error.strerror or error}); expected a file of records.") from error
    except ValueError as error:
        raise RewardError(f"{path} is not a UTF-8 text; expected a file of records.") from error
    found = readers[path.suffix.lower()](text)
    return ((f"{path}:{line}", Fault(f"{path}:{line}", row) if isinstance(row, str) else row) for line, row in found)


def record_of(row: Row, where: str, images: Path) -> Record | Fault:
    """The pair or picture that `row` describes, or what is wrong with it."""
    try:
        if "chosen_path" in row or "reject_path" in row:
            return _pair(row, where, images)
        if "path" in row:
            return Single(Side(_path(row, "path", images), _prompt(row.get("prompt"))), _label(row), where)
    except _Unusable as error:
        return Fault(where, str(error))
    return Fault(
        where,
        f"holds {', '.join(row) or 'nothing'}; expected chosen_path, reject_path and prompt, or path, label and prompt",
    )


def as_row(record: Record) -> dict[str, object]:
    """The fields of a record in the official format."""
    if isinstance(record, Single):
        return {"path": str(record.side.image), "label": record.label, "prompt": record.side.prompt}
    prompts = record.chosen.prompt, record.rejected.prompt
    row: dict[str, object] = {
        "prompt": prompts[0] if prompts[0] == prompts[1] else list(prompts),
        "chosen_path": str(record.chosen.image),
        "reject_path": str(record.rejected.image),
    }
    return row if record.margin is None else {**row, "margin": record.margin}


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSON lines, with whole paths, so that the file can lie anywhere."""
    rows = (
        {name: str(Path(str(value)).absolute()) if name in _PATHS else value for name, value in as_row(record).items()}
        for record in records
    )
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


class _Unusable(ValueError):
    """What is wrong with one field of a record."""


def _pair(row: Row, where: str, images: Path) -> Pair:
    prompts = _prompts(row)
    chosen, rejected = (_path(row, key, images) for key in ("chosen_path", "reject_path"))
    margin = None if row.get("margin") is None else _number(row, "margin")
    return Pair(Side(chosen, prompts[0]), Side(rejected, prompts[1]), margin, where)


def _prompts(row: Row) -> tuple[str, str]:
    if "prompt_chosen" in row or "prompt_rejected" in row:
        return _prompt(row.get("prompt_chosen")), _prompt(row.get("prompt_rejected"))
    prompt = row.get("prompt")
    if isinstance(prompt, list):
        if len(prompt) != 2:
            raise _Unusable(f"prompt lists {len(prompt)} texts; expected one text, or those of both sides")
        return _prompt(prompt[0]), _prompt(prompt[1])
    return _prompt(prompt), _prompt(prompt)


def _prompt(value: object) -> str:
    if not isinstance(value, str):
        raise _Unusable(f"prompt is {'missing' if value is None else repr(value)}; expected a text")
    return value


def _path(row: Row, key: str, images: Path) -> Path:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise _Unusable(f"{key} is {'missing' if value is None else repr(value)}; expected the path of a picture")
    return images / value


def _label(row: Row) -> float:
    label = _number(row, "label")
    if not 0 <= label <= 1:
        raise _Unusable(f"label is {label:g}; expected 0 (bad) to 1 (good)")
    return label


def _number(row: Row, key: str) -> float:
    value = row.get(key)
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _Unusable(f"{key} is {'missing' if value is None else repr(value)}; expected a number")
    return number


def _json(text: str) -> Iterator[tuple[int, Row | str]]:
    """Line and object of each entry of a JSON list, or what is wrong with it; behind broken JSON nothing is read."""
    decoder, position, line = json.JSONDecoder(), 0, 1
    opening, expected = "[", "expected a list of records"
    while True:
        end = position
        while end < len(text) and text[end] in " \t\r\n,":
            end += 1
        line, position = line + text.count("\n", position, end), end
        if opening:
            if text[position : position + 1] != opening:
                yield line, f"is no JSON list; {expected}"
                return
            opening, position = "", position + 1
            continue
        if text[position : position + 1] == "]":
            return
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            yield line, f"is not JSON ({str(error).partition(':')[0]}), so that nothing behind it can be read"
            return
        yield line, value if isinstance(value, dict) else f"is no object but {str(value)[:40]!r}; {expected}"
        line, position = line + text.count("\n", position, end), end


def _jsonl(text: str) -> Iterator[tuple[int, Row | str]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            yield line, f"is not JSON ({str(error).partition(':')[0]})"
            continue
        yield line, value if isinstance(value, dict) else f"is no object but {str(value)[:40]!r}; expected one record"


def _csv(text: str) -> Iterator[tuple[int, Row | str]]:
    """Line and fields of each row; an empty cell is a field that is not there."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names, before = next(reader, []), reader.line_num
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield before + 1, f"is not CSV ({error})"
            return
        if cells is None:
            return
        if cells and len(cells) != len(names):
            yield before + 1, f"has {len(cells)} cells; expected {len(names)}, as the first line names them"
        elif cells:
            yield before + 1, _present(names, cells)
        before = reader.line_num


def _present(names: list[str], cells: list[str]) -> Row:
    """Cells by name; only prompts may be empty."""
    named = zip((name.strip() for name in names), cells, strict=True)
    row = {name: cell for name, cell in named if cell or name == "prompt"}
    two_sided = "prompt_chosen" in row or "prompt_rejected" in row
    return {name: cell for name, cell in row.items() if not (two_sided and name == "prompt")}
