"""What people said about pictures, as evaluation needs it: preferences, labels and ratings with their categories.

The toolkit's own files have the fields that training reads (`rewards.training.records`), and three more:

    rating      of a picture instead of, or beside, its label: a number, higher is better
    category    of a pair or a picture, for tables
    group       candidates of one group were rated together; the prompt if there is none, and a picture without
                either is a group of its own
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from rewards.errors import RewardError
from rewards.training.records import Fault, Pair, Row, Side, record_of, rows


class DataError(RewardError):
    """Data that no reward can be evaluated on."""


@dataclass(frozen=True)
class Preference:
    """A pair of which one side was preferred.

    Attributes:
        pair: both sides.
        category: for tables.
        group: pairs of one group are not independent of each other; mostly those of one prompt.
    """

    pair: Pair
    category: str = ""
    group: str = ""


@dataclass(frozen=True)
class Opinion:
    """What was said about one picture alone.

    Attributes:
        side: picture and prompt.
        positive: whether it is of the better class; None if nothing is said.
        rating: higher is better; None if nothing is said.
        category: for tables.
        group: candidates of one group were rated together; mostly those of one prompt.
    """

    side: Side
    positive: bool | None = None
    rating: float | None = None
    category: str = ""
    group: str = ""


@dataclass(frozen=True)
class Data:
    """Everything that was said.

    Attributes:
        preferences: of pairs.
        opinions: of single pictures.
        comparable: whether ratings of different groups mean the same; ranks do not.
    """

    preferences: tuple[Preference, ...] = ()
    opinions: tuple[Opinion, ...] = ()
    comparable: bool = True

    @property
    def sides(self) -> tuple[Side, ...]:
        """All that has to be scored, each once."""
        paired = (side for each in self.preferences for side in each.pair.sides)
        return tuple(dict.fromkeys((*paired, *(each.side for each in self.opinions))))

    def known(self, scored: Sequence[Side]) -> "Data":
        """What is said about `scored` sides alone."""
        there = set(scored)
        return Data(
            tuple(each for each in self.preferences if there.issuperset(each.pair.sides)),
            tuple(each for each in self.opinions if each.side in there),
            self.comparable,
        )


def with_pairs(data: Data) -> Data:
    """The data with a pair for every two candidates of a group that were rated differently, if it has no pairs."""
    if data.preferences:
        return data
    groups: dict[str, list[Opinion]] = {}
    for opinion in data.opinions:
        if opinion.rating is not None:
            groups.setdefault(opinion.group, []).append(opinion)
    pairs = (_preference(*two) for group in groups.values() for two in combinations(group, 2))
    return Data(tuple(filter(None, pairs)), data.opinions, data.comparable)


def read_own(source: Path, images: Path | None = None) -> tuple[Data, list[Fault]]:
    """The toolkit's own files, see above, and what in them cannot be used.

    Args:
        source: .json, .jsonl or .csv, or a folder that `datasets` wrote.
        images: where relative paths begin; the folder of `source` if None.

    Raises:
        RewardError: no such file, or another kind.
    """
    faults: list[Fault] = []
    found: list[Preference | Opinion] = []
    for where, row in rows(source):
        read = row if isinstance(row, Fault) else own_record(row, where, images or source.parent)
        if isinstance(read, Fault):
            faults.append(read)
        else:
            found.append(read)
    return data_of(found), faults


def data_of(found: Sequence[Preference | Opinion], *, comparable: bool = True) -> Data:
    """Preferences and opinions as they come, sorted into the two kinds."""
    preferences = tuple(each for each in found if isinstance(each, Preference))
    return Data(preferences, tuple(each for each in found if isinstance(each, Opinion)), comparable)


def own_record(row: Row, where: str, images: Path) -> Preference | Opinion | Fault:
    """The preference or opinion that a row tells of, or what is wrong with it."""
    unlabelled = "path" in row and "label" not in row and "rating" in row
    record = record_of({**row, "label": 0} if unlabelled else row, where, images)
    if isinstance(record, Fault):
        return record
    category = str(row.get("category") or "")
    if isinstance(record, Pair):
        return Preference(record, category, str(row.get("group") or record.chosen.prompt or where))
    rating = rating_of(row.get("rating"))
    if rating is not None and math.isnan(rating):
        return Fault(where, f"rating is {row['rating']!r}; expected a number")
    positive = None if unlabelled else record.label >= 0.5
    return Opinion(record.side, positive, rating, category, str(row.get("group") or record.side.prompt or where))


def rating_of(value: object) -> float | None:
    """A number; None if there is none, NaN if it is something else."""
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        number = math.nan
    return number if math.isfinite(number) else math.nan


def _preference(a: Opinion, b: Opinion) -> Preference | None:
    """Which of two rated candidates is preferred; None of equals."""
    if a.rating is None or b.rating is None or a.rating == b.rating:
        return None
    better, worse = (a, b) if a.rating > b.rating else (b, a)
    return Preference(Pair(better.side, worse.side), a.category if a.category == b.category else "", a.group)
