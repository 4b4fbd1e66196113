"""What is to be scored: a folder of pictures, one picture, or a CSV or JSONL list of pictures and prompts."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

from bon_search.errors import SearchError
from bon_search.files import BEST, RESULT, SHEET, reason
from bon_search.pictures import SUFFIXES

COMPOSED = frozenset({BEST, SHEET})  # what a run folder holds beside its candidates


@dataclass(frozen=True)
class Job:
    """One picture to score.

    Attributes:
        image: Its path.
        prompt: What it should show; None: look beside the picture and into it.
    """

    image: Path
    prompt: str | None = None


def jobs_of(source: Path, prompt: str | None = None, *, allow_empty: bool = False) -> list[Job]:
    """The pictures of a folder and its subfolders in the order of their names, or the rows of a list in its order.

    A list is a CSV with the columns image and prompt, or a JSONL of objects with these keys. Its paths are relative to
    the list's folder or, where nothing lies there, to the working directory.

    Args:
        source: Folder, list (.csv or .jsonl), or one picture.
        prompt: For every picture of a folder, and for every row of a list that has none.
        allow_empty: Take an empty prompt, and one that a list leaves empty, as it is.

    Raises:
        SearchError: Nothing there, or a list that is damaged.
    """
    if prompt is not None and not prompt.strip() and not allow_empty:
        raise SearchError(
            "The prompt is empty; say what the pictures should show, or leave --prompt away, or add --allow-empty."
        )
    if source.is_dir():
        jobs = [Job(path, prompt) for path in _pictures(source)]
        if not jobs:
            raise SearchError(f"{source} holds no picture ({', '.join(sorted(SUFFIXES))}); give another folder.")
        return jobs
    suffix = source.suffix.lower()
    if suffix in SUFFIXES and source.exists():
        return [Job(source, prompt)]
    text = _text(source)
    if suffix not in (".csv", ".jsonl"):
        raise SearchError(f"{source} is neither a folder, nor a picture, nor a .csv or .jsonl list; give one of these.")
    records = _csv(text, source) if suffix == ".csv" else _jsonl(text, source)
    jobs = [
        _job(record, f"{source}, entry {k},", source.parent, prompt, allow_empty=allow_empty)
        for k, record in enumerate(records, 1)
    ]
    if not jobs:
        raise SearchError(f"{source} lists no picture; write one a line, with image and prompt.")
    return jobs


def _pictures(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise SearchError(f"{error.filename} cannot be read ({reason(error)}); check its permissions.") from error

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        made = COMPOSED if RESULT in files else frozenset()  # a run's own: its candidates are in the folder below
        pictures = (
            name
            for name in files
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".") and name not in made
        )
        found += [Path(parent, name) for name in sorted(pictures)]
    return found


def _text(source: Path) -> str:
    try:
        return source.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SearchError(
            f"{source} cannot be read ({reason(error)}); give a folder of pictures, or a .csv or .jsonl list."
        ) from error
    except ValueError as error:  # not UTF-8, or a name that no file can have
        raise SearchError(
            f"{source} is not a UTF-8 text; give a folder, a picture, or a .csv or .jsonl list."
        ) from error


def _csv(text: str, source: Path) -> list[dict[str, object]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [name or "" for name in reader.fieldnames or ()]
        if "image" not in columns:
            raise SearchError(
                f"{source} has no column image (its first line reads {','.join(columns)[:80]!r}); name the columns "
                "image and prompt there."
            )
        return [dict(record) for record in reader]
    except csv.Error as error:
        raise SearchError(f"{source}, line {reader.line_num}, is not CSV ({error}); mend that line.") from error


def _jsonl(text: str, source: Path) -> list[dict[str, object]]:
    records = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SearchError(f"{source}, line {number}, is not JSON ({error}); mend that line.") from error
        if not isinstance(record, dict):
            raise SearchError(f'{source}, line {number}, is no object; write {{"image": …, "prompt": …}}.')
        records.append(record)
    return records


def _job(record: dict[str, object], where: str, folder: Path, prompt: str | None, *, allow_empty: bool) -> Job:
    image, own = record.get("image"), record.get("prompt")
    if not isinstance(image, str) or not image.strip():
        raise SearchError(f"{where} names no image; give a path under image.")
    if own is not None and not isinstance(own, str):
        raise SearchError(f"{where} has a prompt that is no text ({own!r}); put it in quotes.")
    path = folder / image
    if prompt is None and own is not None and allow_empty:
        prompt = ""
    return Job(
        path if os.path.lexists(path) or not os.path.lexists(image) else Path(image), (own or "").strip() or prompt
    )
