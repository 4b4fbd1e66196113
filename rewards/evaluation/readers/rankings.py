"""Public benchmarks of ranked candidates: the test sets of ImageReward and of HPDv2.

Checked against: ImageReward's `data/test.json` itself (id, prompt, generations, ranking; 1 is the best, equal numbers
are ties) and its `test.py`, which reads pictures below `data/test_images`; HPDv2's dataset card and README (prompt,
image_path, rank, raw_annotations; pictures in test/) and HPSv2's `evaluation.py`, where rank 0 goes to the highest
score, so that lower is better. Ranks of different prompts say nothing about each other.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rewards.evaluation.readers.tables import json_of, placed, text_of
from rewards.evaluation.records import Data, DataError, Opinion, data_of, rating_of
from rewards.training.records import Fault, Row, Side


def imagereward(source: Path, images: Path | None = None) -> tuple[Data, list[Fault]]:
    """ImageReward's test set: `test.json`, with the pictures in test_images beside it or in `images`."""
    return _read(source, [images or source.parent / "test_images", source.parent], ("generations", "ranking"))


def hpdv2(source: Path, images: Path | None = None) -> tuple[Data, list[Fault]]:
    """HPDv2's test set: `test.json`, with the pictures in test beside it or in `images`; `rank` is used, the mean."""
    return _read(source, [images or source.parent / "test", source.parent], ("image_path", "rank"))


def _read(source: Path, roots: Sequence[Path], names: tuple[str, str]) -> tuple[Data, list[Fault]]:
    found: list[Opinion] = []
    faults: list[Fault] = []
    for number, row in enumerate(json_of(source), 1):
        where = f"{source}, entry {number}"
        try:
            found += _candidates(row, where, roots, names)
        except DataError as error:
            faults.append(Fault(where, str(error)))
    return data_of(found, comparable=False), faults


def _candidates(row: Row, where: str, roots: Sequence[Path], names: tuple[str, str]) -> list[Opinion]:
    if not isinstance(row, Mapping):
        raise DataError("is no object.")
    pictures, places = (row.get(name) for name in names)
    if not isinstance(pictures, list) or not isinstance(places, list) or len(pictures) != len(places):
        raise DataError(f"has not one number under {names[1]} for each picture under {names[0]}.")
    ranks = [rating_of(place) for place in places]
    if any(rank is None or rank != rank for rank in ranks):  # NaN is no rank
        raise DataError(f"has a rank that is no number ({places!r:.60}).")
    prompt, group = text_of(row, "prompt"), str(row.get("id") or where)
    sides = (Side(placed(name, roots), prompt) for name in pictures)
    return [Opinion(side, rating=-(rank or 0.0), group=group) for side, rank in zip(sides, ranks, strict=True)]
