"""Rows of a table of pictures, from whatever it lies in.

That is parquet as the hub has it, a folder that `datasets` wrote, or an export as JSON, JSONL or CSV with paths.
Pictures inside parquet are unpacked beside it once, named by their content.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from rewards.evaluation.records import DataError
from rewards.training.arrow import unpacked
from rewards.training.records import Fault, Row, rows

_AT_ONCE = 64  # rows of a parquet file in memory

Entries: TypeAlias = Iterator[tuple[str, Row | Fault]]


def table_rows(source: Path) -> Entries:
    """Place and fields of every row; fields that held pictures hold their paths.

    Raises:
        RewardError: it cannot be read, or needs a library that is not installed.
    """
    for file in parquet_files(source):
        yield from _parquet(file)
    if not parquet_files(source):
        yield from rows(source)


def columns(source: Path) -> set[str]:
    """Names of the fields of a table, as its first row has them."""
    files = parquet_files(source)
    if files:
        return set(_arrow_parquet(files[0]).ParquetFile(files[0]).schema_arrow.names)
    if source.suffix.lower() == ".json":
        whole = json_of(source)
        first = next(iter(whole.values() if isinstance(whole, dict) else whole), None)
    else:
        first = next((row for _, row in rows(source) if not isinstance(row, Fault)), None)
    return {str(name) for name in first} if isinstance(first, Mapping) else set()


def parquet_files(source: Path) -> list[Path]:
    """The file itself, all of a folder or its folder data, or all parts of the split FOLDER/NAME, by their names."""
    if source.is_dir():
        return sorted(source.glob("*.parquet")) or sorted(source.glob("data/*.parquet"))
    if source.suffix.lower() == ".parquet":
        return [source]
    beside = sorted(source.parent.glob("*.parquet")) if source.parent.is_dir() and not source.exists() else []
    return [file for file in beside if split_of(file) == source.name]


def split_of(file: Path) -> str:
    """The split that a parquet file belongs to, as the hub names them: test-00000-of-00002.parquet, or test.parquet."""
    return re.sub(r"-\d+-of-\d+(-\w+)?$", "", file.stem)


def json_of(source: Path) -> Any:  # noqa: ANN401  whatever the file holds
    """What a JSON file holds.

    Raises:
        DataError: it cannot be read, or is no JSON list or object.
    """
    try:
        whole = json.loads(source.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror or error}); check the path.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source} is not JSON ({error}); if it has an object a line, name it .jsonl.") from error
    if not isinstance(whole, dict | list):
        raise DataError(f"{source} holds a {type(whole).__name__}; expected a list or an object of records.")
    return whole


def placed(name: object, roots: Sequence[Path]) -> Path:
    """Where a picture lies: below the first of `roots` that has it, or would lie below the first."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise DataError(f"names no picture ({name!r:.60}); expected a path.")
    return next((root / name for root in roots if (root / name).exists()), roots[0] / name)


def text_of(row: Row, name: str) -> str:
    """A field that is text."""
    value = row.get(name)
    if not isinstance(value, str):
        raise DataError(f"has no text as {name} ({value!r:.60}).")
    return value


def _parquet(file: Path) -> Entries:
    table = _arrow_parquet(file).ParquetFile(file)
    number = 0
    for batch in table.iter_batches(batch_size=_AT_ONCE):
        for row in batch.to_pylist():
            number += 1
            yield f"{file}, row {number}", {name: _plain(value, file.with_suffix("")) for name, value in row.items()}


def _plain(value: object, folder: Path) -> object:
    """A field's value; of a picture the path of its file, below `folder` if it has none of its own."""
    if isinstance(value, bytes):
        return unpacked({"bytes": value}, folder)
    if isinstance(value, dict) and set(value) == {"bytes", "path"}:
        return unpacked(value, folder) if value["bytes"] else value["path"]
    return value


def _arrow_parquet(file: Path) -> Any:  # noqa: ANN401  a module without types
    try:
        return import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataError(
            f"{file} is a parquet file, which needs the library pyarrow: pip install pyarrow, or export it as .jsonl "
            "with the pictures as files."
        ) from error
