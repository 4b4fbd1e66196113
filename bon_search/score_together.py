"""Scores that depend on the other pictures of a prompt: sums of ranks, cascades, rewards that only compare.

A combination is computed from what its rewards say of each picture. So these are asked one after the other, in batches
of any prompts, as `bon_search.score` does it, and what they say is kept; no prompt's pictures need be in memory
together, and a picture that one of them cannot score leaves the company as if it had never been there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from bon_search.score import Failure, Outcome, blank_entry, entries
from bon_search.score_jobs import Job
from bon_search.score_table import Entry, Outputs, Row
from bon_search.tournament import standings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rewards import Reward
    from rewards.base import ImagesLike, Scores
    from rewards.preferences import Compares

Ask: TypeAlias = Callable[[Sequence[Job], "Reward", str], Iterator[Outcome]]  # outcomes of a reward under a label


@dataclass(frozen=True)
class Together:
    """What came of it.

    Attributes:
        rows: By prompt, best first; ties in the order of their paths.
        failures: Pictures without a score.
        reports: Cyclic preferences, one sentence for each prompt that has them.
    """

    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    reports: tuple[str, ...]


class _LostError(Exception):
    """Some pictures have no score under one of the rewards."""

    def __init__(self, failures: Sequence[Failure], left: Sequence[Entry]) -> None:
        super().__init__(failures)
        self.failures, self.left = failures, left


def score_together(jobs: Iterable[Job], reward: Reward, spec: str, ask: Ask, *, allow_empty: bool = False) -> Together:
    """Score all pictures by a reward whose scores depend on their company.

    Args:
        jobs: What to score; the same picture and prompt twice are scored once.
        reward: A combination, or one that only compares.
        spec: What it is called in rows.
        ask: Gives the outcomes of a single reward; that it has given already it should give again from memory.
        allow_empty: Take pictures that have no prompt, with an empty one.

    Raises:
        SearchError: A reward whose scores depend on the others and that offers nothing that could be compared later.
    """
    from rewards.combine import with_parts

    named = list(entries(jobs, blank_entry(reward, spec), allow_empty=allow_empty))
    alive = [each for each in named if isinstance(each, Entry)]
    failures = [each for each in named if isinstance(each, Failure)]
    while alive:
        parts: list[_Part] = []

        def stand_in(part: Reward, parts: list[_Part] = parts) -> Reward:
            parts.append(_Part(part, _label(part, reward, spec, len(parts)), ask))
            return cast("Reward", parts[-1])

        try:
            scores = with_parts(reward, stand_in)(cast("ImagesLike", alive), [entry.prompt for entry in alive])
        except _LostError as lost:
            failures += lost.failures
            gone = {entry.key for entry in lost.left}
            alive = [entry for entry in alive if entry.key not in gone]
            continue
        rows = [entry.scored(score) for entry, score in zip(alive, scores.tolist(), strict=True)]
        rows.sort(key=lambda row: (row.prompt, -row.score, row.key))
        return Together(tuple(rows), tuple(failures), tuple(report for part in parts for report in part.reports))
    return Together((), tuple(failures), ())


class _Part:
    """One reward of a combination: takes names of pictures where a reward takes pictures."""

    def __init__(self, reward: Reward, label: str, ask: Ask) -> None:
        self.name, self.absolute = reward.name, reward.absolute
        self.reports: list[str] = []
        self._reward, self._label, self._ask = reward, label, ask

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores (N,) of N entries."""
        import torch

        named = cast("Sequence[Entry]", images)
        outcomes = list(self._ask([Job(Path(each.image), each.prompt) for each in named], self._reward, self._label))
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        found = {(each.image, each.prompt): each for each in outcomes if not isinstance(each, Failure)}
        left = [entry for entry in named if (entry.image, entry.prompt) not in found]
        if left:
            raise _LostError(failures, left)
        rows = {(row.image, row.prompt): row for row in self._rows(list(found.values()))}
        return torch.tensor([rows[each.image, each.prompt].score for each in named])

    def _rows(self, given: Sequence[Row | Outputs]) -> Iterator[Row]:
        yield from (row for row in given if isinstance(row, Row))
        outputs = [each for each in given if isinstance(each, Outputs)]
        for tournament in standings(outputs, cast("Compares", self._reward)):
            self.reports += filter(None, [tournament.report])
            yield from tournament.rows


def _label(part: Reward, whole: Reward, spec: str, number: int) -> str:
    """What a part is called where its scores are kept: its name, if its revision tells it from others of that name."""
    if part is whole:
        return spec
    return part.name if getattr(part, "revision", "") else f"{part.name}, part {number} of {spec}"
