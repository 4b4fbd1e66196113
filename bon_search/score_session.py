"""One reward after another scores the same pictures; what it says goes into the table, and comes back as a column."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from bon_search.agreement import Agreement, agreement
from bon_search.asked import single_name
from bon_search.score import Failure, score_pictures
from bon_search.score_table import Outputs, R, Row, Table
from bon_search.score_together import score_together

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bon_search.score import Outcome
    from bon_search.score_jobs import Job
    from rewards import Reward


@dataclass
class Column:
    """What one reward said; it grows as outcomes come, so that an interrupt finds what there is.

    Attributes:
        spec: Of the reward.
        rows: Pictures with scores.
        failures: Pictures without.
        remarks: What is to be said of the scores, in sentences.
    """

    spec: str
    rows: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def groups(self) -> dict[str, dict[str, float]]:
        """Prompt → picture → score."""
        found: dict[str, dict[str, float]] = {}
        for row in self.rows:
            found.setdefault(row.prompt, {})[row.image] = row.score
        return found


@dataclass(frozen=True)
class Session:
    """Pictures to score, and where scores are kept.

    Attributes:
        jobs: The pictures.
        table: Takes the rows of all rewards.
        batch_size: Most pictures in one call of a reward.
        allow_empty: Take pictures that have no prompt, with an empty one.
    """

    jobs: Sequence[Job]
    table: Table[Row]
    batch_size: int
    allow_empty: bool = False

    def fill(self, column: Column, reward: Reward, label: str) -> None:
        """Score all pictures by a reward.

        Args:
            column: Takes what comes.
            reward: Any; what it says of single pictures is kept beside the table, if scores depend on their company.
            label: What the reward is called in rows.

        Raises:
            SearchError: A table that cannot be written, or a reward that offers nothing that could be compared later.
        """
        if not reward.absolute:
            self._together(column, reward, label)
            return
        for outcome in self._outcomes(self.jobs, reward, label, self.table):
            if isinstance(outcome, Row):
                column.rows.append(outcome)
            elif isinstance(outcome, Failure):
                column.failures.append(outcome)

    def _together(self, column: Column, reward: Reward, label: str) -> None:
        """Scores of a prompt take the place of those that the same reward gave earlier, in other company."""
        with self._beside(".parts.jsonl", Row) as parts, self._beside(".outputs.jsonl", Outputs) as outputs:

            def ask(jobs: Sequence[Job], part: Reward, name: str) -> Iterator[Outcome]:
                if part.absolute:
                    return self._outcomes(jobs, part, name, parts)
                return self._outcomes(jobs, part, name, outputs)

            found = score_together(self.jobs, reward, label, ask, allow_empty=self.allow_empty)
        column.rows += found.rows
        column.failures += found.failures
        column.remarks += [_meaning(reward), *found.reports]
        judged = {(row.reward, row.revision, row.prompt) for row in found.rows}
        self.table.replace(found.rows, lambda row: (row.reward, row.revision, row.prompt) in judged)

    def _beside(self, suffix: str, kind: type[R]) -> Table[R]:
        return Table(self.table.path and self.table.path.with_suffix(suffix), kind)

    def _outcomes(self, jobs: Sequence[Job], reward: Reward, label: str, table: Table[R]) -> Iterator[Outcome]:
        """Outcomes as they come, each entered in `table`, with the progress on stderr."""
        from tqdm import tqdm

        given = score_pictures(
            jobs, reward, spec=label, batch_size=self.batch_size, known=table.rows, allow_empty=self.allow_empty
        )
        with tqdm(total=len(jobs), unit="picture", leave=False, dynamic_ncols=True, smoothing=0) as bar:
            for outcome in given:
                if isinstance(outcome, Row | Outputs):
                    bar.initial += outcome.key in table.rows  # scored earlier: does not count for rate and time left
                    table.add(cast("R", outcome))  # absolute or not, the table is of its kind
                bar.update()
                yield outcome


def compared(columns: Sequence[Column]) -> Agreement:
    """How far rewards rank alike the pictures that all of them scored."""
    first, groups = columns[0].groups(), []
    others = [column.groups() for column in columns]
    for prompt, pictures in first.items():
        shared = [image for image in pictures if all(image in other.get(prompt, ()) for other in others)]
        groups.append([[other[prompt][image] for image in shared] for other in others])
    return agreement([column.spec for column in columns], groups)


def deviations(columns: Sequence[Column]) -> dict[str, float]:
    """Each reward's deviation within a prompt, by the name that a calibration file has for it.

    Raises:
        RewardError: Fewer than two pictures of every prompt, the same score for all, or a combination.
    """
    from rewards.calibration import deviation

    found = {}
    for column in columns:
        groups = [list(scores.values()) for scores in column.groups().values() if len(scores) > 1]
        found[single_name(column.spec)] = deviation(column.spec, groups)
    return found


def _meaning(reward: Reward) -> str:
    from rewards.preferences import Compares

    if isinstance(reward, Compares):
        return (
            "this reward only compares: a score is the mean probability of being preferred to the other pictures of "
            "the same prompt, so it changes with them."
        )
    return f"scores of {reward.name!r} depend on the other pictures of the same prompt, so they change with them."
