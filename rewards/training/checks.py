"""Everything that can be wrong with training data, found before a model is loaded, each with its line.

Looked at are every picture (there, readable), every prompt, and the records against each other: duplicates,
contradictions, and pictures that training shares with the test, by a hash of their pixels.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from rewards.errors import ImageError
from rewards.llava.pictures import as_pictures
from rewards.training.records import Fault, Pair, Record, Side, Single

_WORKERS = max(4, min(8, os.cpu_count() or 1))
_AT_ONCE = 64  # pictures that a thread takes

Seen: TypeAlias = tuple[str, str]  # hash of a picture's pixels, prompt


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        faults: in the order of the records.
        good: the records without any.
    """

    faults: list[Fault]
    good: list[Record]


def check_records(
    records: Sequence[Record], *, faults: Sequence[Fault] = (), test: Sequence[Record] = (), allow_empty: bool = False
) -> Report:
    """Look at all of `records`.

    Args:
        records: to be trained on.
        faults: of lines that could not be read; they come first.
        test: records that training must share no picture with.
        allow_empty: take prompts without a word.
    """
    digests = digests_of([*records, *test])
    tested = {str(digests[side.image]): each.where for each in test for side in each.sides}
    found = list(faults)
    usable: list[Record] = []
    for record in records:
        messages = dict.fromkeys(_wrong(record, digests, tested, allow_empty=allow_empty))
        wrong = [Fault(record.where, message) for message in messages]
        found += wrong
        usable += [] if wrong else [record]
    clashes = list(_clashes(usable, digests))
    bad = {fault.where for fault in clashes}
    return Report([*found, *clashes], [record for record in usable if record.where not in bad])


def digests_of(records: Sequence[Record]) -> dict[Path, "str | ImageError"]:
    """A hash of the pixels of every picture in `records`, or why it cannot be read."""
    paths = list(dict.fromkeys(side.image for record in records for side in record.sides))
    parts = [paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE)]
    with ThreadPoolExecutor(_WORKERS) as pool:
        found = pool.map(lambda part: [_digest(path) for path in part], parts)
        return dict(zip(paths, chain.from_iterable(found), strict=True))


def open_picture(path: Path) -> Image.Image:
    """The picture in a file, in 8 bits a channel.

    Raises:
        ImageError: there is none, or it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return as_pictures([image])[0]
    except FileNotFoundError:
        raise ImageError(f"there is no picture {path}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # PIL's own for a broken file
        raise ImageError(f"the picture {path} cannot be read ({error})") from error


def _digest(path: Path) -> str | ImageError:
    try:
        image = open_picture(path).convert("RGB")
    except ImageError as error:
        return error
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def _wrong(
    record: Record, digests: Mapping[Path, str | ImageError], tested: Mapping[str, str], *, allow_empty: bool
) -> Iterator[str]:
    """What is wrong with one record alone; what is wrong with both sides comes twice."""
    for side in record.sides:
        digest = digests[side.image]
        if isinstance(digest, ImageError):
            yield str(digest)
        elif digest in tested:
            yield f"the picture {side.image} is in the test data too ({tested[digest]})"
        if not side.prompt.strip() and not allow_empty:
            yield f"the prompt {side.prompt!r} is empty"
    if isinstance(record, Pair) and _seen(record.chosen, digests) == _seen(record.rejected, digests):
        yield "both sides are the same picture with the same prompt"


def _clashes(records: Sequence[Record], digests: Mapping[Path, str | ImageError]) -> Iterator[Fault]:
    """Records that repeat an earlier one, and both of two that contradict each other."""
    pairs: dict[tuple[Seen, Seen], str] = {}
    singles: dict[Seen, Single] = {}
    for record in records:
        if isinstance(record, Single):
            yield from _against(singles.setdefault(_seen(record.side, digests), record), record)
            continue
        key = _seen(record.chosen, digests), _seen(record.rejected, digests)
        if key[::-1] in pairs:
            yield from _contradiction(pairs[key[::-1]], record.where)
        elif key in pairs:
            yield Fault(record.where, f"repeats {pairs[key]}")
        else:
            pairs[key] = record.where


def _against(earlier: Single, later: Single) -> Iterator[Fault]:
    if earlier is later:
        return
    if earlier.label == later.label:
        yield Fault(later.where, f"repeats {earlier.where}")
    else:
        yield from _contradiction(earlier.where, later.where)


def _contradiction(earlier: str, later: str) -> Iterator[Fault]:
    yield Fault(earlier, f"is contradicted by {later}")
    yield Fault(later, f"contradicts {earlier}")


def _seen(side: Side, digests: Mapping[Path, str | ImageError]) -> Seen:
    digest = digests[side.image]
    return (digest if isinstance(digest, str) else str(side.image)), side.prompt
