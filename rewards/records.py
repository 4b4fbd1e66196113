"""Preferences, labels and ratings of pictures: the records that rewards are trained on and evaluated with.

A file is JSON (a list of objects), JSONL (an object a line) or CSV (a header). What a record is, its keys say:

    pair      chosen, rejected, prompt; different prompts for the two: prompt as a list of two, or rejected_prompt
    single    image, prompt, with label (0 or 1), rating (a number, higher is better), or both
    either    category, for tables; group, for candidates that were rated together (by default the prompt)

and so do the keys of the published LLaVA-Reward: chosen_path, reject_path, c_rate, r_rate; path, label, prompt. Keys
that nobody knows are not looked at. Paths are relative to the file's folder or, where nothing lies there, to the
working directory.
"""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from rewards.errors import RewardError

ENDINGS = (".json", ".jsonl", ".csv")
CHOSEN, REJECTED, IMAGE = ("chosen", "chosen_path"), ("rejected", "reject_path"), ("image", "path")

Fields: TypeAlias = Mapping[str, object]


class RecordError(RewardError):
    """A file of records that cannot be used, or one of its records."""


@dataclass(frozen=True)
class Pair:
    """Of two pictures one is preferred.

    Attributes:
        chosen: the preferred picture.
        rejected: the other one.
        prompt: what the chosen one was to show.
        rejected_prompt: what the other one was to show, nearly always the same.
        category: what kind of pair it is, for tables.
        group: pairs of one group are not independent of each other; usually the prompt.
        where: its place in its file, for messages.
    """

    chosen: Path
    rejected: Path
    prompt: str
    rejected_prompt: str
    category: str = ""
    group: str = ""
    where: str = ""


@dataclass(frozen=True)
class Single:
    """One picture with what people said about it.

    Attributes:
        image: the picture.
        prompt: what it was to show; empty where the data has none.
        label: 1 or 0, of whatever the reward classifies (1 is the better class).
        rating: higher is better.
        category: what kind of picture it is, for tables.
        group: candidates of one group were rated together; usually the prompt.
        where: its place in its file, for messages.
    """

    image: Path
    prompt: str
    label: int | None = None
    rating: float | None = None
    category: str = ""
    group: str = ""
    where: str = ""


Record: TypeAlias = Pair | Single


@dataclass(frozen=True)
class Fault:
    """A record that cannot be used.

    Attributes:
        where: its place, for example "line 7".
        what: what is wrong with it and how to mend it.
    """

    where: str
    what: str


def read_records(source: Path) -> tuple[list[Record], list[Fault]]:
    """The records of a file in its order, and those that cannot be used.

    Only the text is looked at: whether a picture is there and can be read shows when it is read.

    Raises:
        RecordError: no such file, or not one of the three formats.
    """
    records: list[Record] = []
    faults: list[Fault] = []
    for where, entry in entries(source):
        try:
            records.append(record_of(entry, source.parent, where))
        except RecordError as error:
            faults.append(Fault(where, str(error)))
    return records, faults


def usable(source: Path, records: list[Record], faults: list[Fault], *, skip: bool = False) -> list[Record]:
    """The records, if there are any and no faults, or these may be skipped.

    Raises:
        RecordError: faults that may not be skipped, or no record; the message names the first.
    """
    if faults and not skip:
        more = f" ({len(faults) - 1} more of {len(faults) + len(records)} records cannot be used)" * (len(faults) > 1)
        raise RecordError(f"{source}, {faults[0].where}: {faults[0].what}{more}")
    if not records:
        raise RecordError(f"{source} holds no record that can be used; give pairs or single pictures.")
    return records


def record_of(entry: Fields, folder: Path, where: str) -> Record:
    """The pair or the single picture that an object of a file tells of.

    Raises:
        RecordError: it tells of none, or something is missing or no text.
    """
    category, group = _optional_text(entry, "category"), _optional_text(entry, "group")
    if _has(entry, CHOSEN) or _has(entry, REJECTED):
        chosen, rejected = located(_text(entry, CHOSEN), folder), located(_text(entry, REJECTED), folder)
        prompt, other = _prompts(entry)
        return Pair(chosen, rejected, prompt, other, category, group or prompt, where)
    if not _has(entry, IMAGE):
        raise RecordError(f"is neither a pair nor a picture: its keys are {', '.join(map(str, entry)) or 'none'}.")
    label, rating = _label(entry.get("label")), _rating(entry.get("rating"))
    if label is None and rating is None:
        raise RecordError("has neither a label nor a rating; give one of the two.")
    prompt = _prompt(entry.get("prompt") or "")
    return Single(located(_text(entry, IMAGE), folder), prompt, label, rating, category, group or prompt, where)


def located(name: str, folder: Path) -> Path:
    """A path as the folder has it or, if nothing is there but in the working directory, as that has it."""
    path = folder / name
    return Path(name) if not os.path.lexists(path) and os.path.lexists(name) else path


def entries(source: Path) -> Iterator[tuple[str, Fields]]:
    """The objects of a JSON, JSONL or CSV file, each with its place.

    Raises:
        RecordError: it cannot be read, or is not what its ending says.
    """
    parse = _PARSERS.get(source.suffix.lower())
    if parse is None:
        raise RecordError(f"{source} ends in none of {', '.join(ENDINGS)}; give such a file.")
    try:
        text = source.read_text(encoding="utf-8-sig")
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise RecordError(f"{source} cannot be read ({why}); check the path.") from error
    except ValueError as error:  # not UTF-8, or a name that no file can have
        raise RecordError(f"{source} is not a UTF-8 text; give a .json, .jsonl or .csv file.") from error
    for where, entry in parse(text, source):
        if not isinstance(entry, dict):
            raise RecordError(f"{source}, {where}, is no object; write one object for each record.")
        yield where, entry


def _json(text: str, source: Path) -> Iterator[tuple[str, object]]:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{source} is not JSON ({error}); if it has an object a line, name it .jsonl.") from error
    if not isinstance(whole, list):
        raise RecordError(f"{source} holds a {type(whole).__name__}; expected a list of objects.")
    for number, entry in enumerate(whole, 1):
        yield f"entry {number}", entry


def _jsonl(text: str, source: Path) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{source}, line {number}, is not JSON ({error}); mend that line.") from error


def _csv(text: str, source: Path) -> Iterator[tuple[str, object]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for entry in reader:
            yield f"line {reader.line_num}", {name: value for name, value in entry.items() if name and value != ""}
    except csv.Error as error:
        raise RecordError(f"{source}, line {reader.line_num}, is not CSV ({error}); mend that line.") from error


_PARSERS: dict[str, Callable[[str, Path], Iterator[tuple[str, object]]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _csv,
}


def _has(entry: Fields, names: Iterable[str]) -> bool:
    return any(name in entry for name in names)


def _text(entry: Fields, names: tuple[str, ...]) -> str:
    value = next((entry[name] for name in names if name in entry), None)
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f"has no path as {names[0]} (got {value!r:.60}); give one.")
    return value


def _optional_text(entry: Fields, name: str) -> str:
    value = entry.get(name)
    return "" if value is None else str(value)


def _prompts(entry: Fields) -> tuple[str, str]:
    """The prompts of the chosen and of the rejected picture."""
    value = entry.get("prompt")
    if isinstance(value, list) and len(value) == 2:
        return _prompt(value[0]), _prompt(value[1])
    prompt = _prompt(value)
    return prompt, _prompt(entry.get("rejected_prompt", prompt))


def _prompt(value: object) -> str:
    if not isinstance(value, str):
        raise RecordError(f"has a prompt that is no text ({value!r:.60}); give one, or for a pair a list of two.")
    return value


def _label(value: object) -> int | None:
    if value is None:
        return None
    if str(value) not in ("0", "1", "0.0", "1.0", "False", "True"):
        raise RecordError(f"has the label {value!r:.60}; expected 0 or 1.")
    return int(str(value) in ("1", "1.0", "True"))


def _rating(value: object) -> float | None:
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RecordError(f"has the rating {value!r:.60}; expected a finite number.")
    return number
