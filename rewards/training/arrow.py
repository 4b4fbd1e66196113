"""Folders that the library `datasets` wrote, row by row; pictures inside them are unpacked beside them once."""

import hashlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewards.errors import RewardError

if TYPE_CHECKING:
    from rewards.training.records import Fault, Row


def arrow_rows(folder: Path) -> "Iterator[tuple[str, Row | Fault]]":
    """Place and fields of every row of a folder that `Dataset.save_to_disk` wrote.

    Raises:
        RewardError: `datasets` is not installed, or the folder holds something else.
    """
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        raise RewardError(
            f"{folder} is a folder, which needs the library datasets: pip install datasets, or give a .json, .jsonl or "
            ".csv file."
        ) from error
    try:
        data = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises plain ones
        raise RewardError(
            f"{folder} is no folder that datasets wrote ({error}); expected one split of data."
        ) from error
    if not isinstance(data, datasets.Dataset):
        raise RewardError(f"{folder} holds the splits {', '.join(data)}; give the folder of one of them.")
    pictures = [name for name, feature in data.features.items() if isinstance(feature, datasets.Image)]
    for name in pictures:
        data = data.cast_column(name, datasets.Image(decode=False))
    for number, row in enumerate(data, 1):
        yield f"{folder}, row {number}", {**row, **{name: unpacked(row[name], folder) for name in pictures}}


def unpacked(picture: dict[str, Any] | None, folder: Path) -> str | None:
    """The path of a picture; one that lies in the table itself is written beside the folder, named by its content."""
    if picture is None or not picture.get("bytes"):
        return None if picture is None else str(Path(picture["path"]).absolute())
    content: bytes = picture["bytes"]
    path = folder.absolute().with_name(f"{folder.name}-pictures") / hashlib.sha256(content).hexdigest()[:24]
    if not path.exists():
        try:
            path.parent.mkdir(exist_ok=True)
            path.with_suffix(".part").write_bytes(content)
            path.with_suffix(".part").replace(path)
        except OSError as error:
            raise RewardError(f"{path} cannot be written ({error}); copy the data to a folder of yours.") from error
    return str(path)
