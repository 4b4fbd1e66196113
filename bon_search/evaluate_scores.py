"""Rewards score all that people judged, once: what is scored is kept, and the same command goes on from there.

A score is kept by content of the picture, prompt, reward and revision of its weights (`bon_search.score_table`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from bon_search.errors import SearchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from bon_search.score import Failure
    from bon_search.score_table import Outputs, Row
    from rewards import Reward
    from rewards.evaluation.judged import Compare, Judged
    from rewards.evaluation.records import Data
    from rewards.preferences import Compares
    from rewards.training.records import Side

TAU = {"llava-reward": 0.1}  # of the embedded one, whose scores are in units of it


@dataclass(frozen=True)
class Scored:
    """What a reward gave; one with absolute scores is itself no longer needed, and its memory is free.

    Attributes:
        spec: what it is called in reports.
        outputs: side → one score, or what the head of a reward that only compares gave.
        tau: sigmoid(difference / tau) is its probability of a preference; None if it states none.
        revision: of its weights; empty if it has none.
        compare: `rewards.preferences.Compares.chances` of one that only compares.
    """

    spec: str
    outputs: Mapping[Side, tuple[float, ...]]
    tau: float | None
    revision: str
    compare: Compare | None

    def judged(self, data: Data, *, tau: float | None = None, bfloat16: bool = False) -> Judged:
        """Its numbers for the data, of which all sides are scored.

        Raises:
            RewardError: see `rewards.evaluation.judged.judged`.
            SearchError: rounding of a reward that only compares and states no temperature.
        """
        from rewards.evaluation.judged import compared, judged

        if self.compare is None:
            return judged(self.spec, data, self.outputs, tau=tau or self.tau, bfloat16=bfloat16)
        compare = _rounded(self.spec, self.tau) if bfloat16 else self.compare
        return compared(self.spec, data, self.outputs, compare)


def score(
    sides: Sequence[Side],
    reward: Reward,
    spec: str,
    path: Path | None,
    *,
    kept_as: str = "",
    cache: Path | None = None,
    batch_size: int,
    seen: Callable[[], object] = lambda: None,
) -> tuple[Scored, list[Failure]]:
    """Score every side that is not scored yet; what cannot be read or scored is a `Failure`.

    Args:
        sides: each once.
        reward: absolute, or one that compares.
        spec: what it is called in reports.
        path: beginning of the names of files that keep scores, PATH.scores.jsonl or PATH.outputs.jsonl; None keeps
            nothing.
        kept_as: what it is called there, with all its options; `spec` if empty.
        cache: file that keeps scores for other commands, too.
        batch_size: most pictures in one call of the reward.
        seen: called after every side.

    Raises:
        SearchError: the file cannot be written, or the reward offers nothing that can be compared.
    """
    from bon_search.score import Failure, score_pictures
    from bon_search.score_jobs import Job
    from bon_search.score_table import Outputs, Row, Table
    from rewards.cache import cached

    kind = Row if reward.absolute else Outputs
    file = path and path.with_name(path.name + (".scores.jsonl" if reward.absolute else ".outputs.jsonl"))
    found: dict[tuple[str, str], tuple[float, ...]] = {}
    failures: list[Failure] = []
    jobs = [Job(side.image, side.prompt) for side in sides]
    judge = cached(reward, cache)
    with Table(cast("Any", file), cast("Any", kind)) as table:
        for outcome in score_pictures(jobs, judge, spec=kept_as or spec, batch_size=batch_size, known=table.rows):
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                table.add(outcome)
                found[_key(outcome.image, outcome.prompt)] = _numbers(outcome)
            seen()
    compare = None if reward.absolute else cast("Compares", reward).chances
    tau = getattr(reward, "tau", TAU.get(reward.name))
    revision = str(getattr(reward, "revision", ""))
    return Scored(spec, dict(_by_side(sides, found)), tau, revision, compare), failures


def _by_side(
    sides: Iterable[Side], found: Mapping[tuple[str, str], tuple[float, ...]]
) -> Iterator[tuple[Side, tuple[float, ...]]]:
    for side in sides:
        numbers = found.get(_key(str(side.image), side.prompt))
        if numbers is not None:
            yield side, numbers


def _key(image: str, prompt: str) -> tuple[str, str]:
    return os.path.abspath(image), prompt  # noqa: PTH100  as `score_table` does


def _numbers(outcome: Row | Outputs) -> tuple[float, ...]:
    from bon_search.score_table import Row

    return (outcome.score,) if isinstance(outcome, Row) else outcome.outputs


def _rounded(spec: str, tau: float | None) -> Compare:
    """Probabilities of a head of general preference, every step rounded to bfloat16."""
    from rewards.llava.heads import win_probabilities

    if tau is None:
        raise SearchError(f"Rounding to bfloat16 follows LLaVA-Reward; {spec!r} states no temperature: leave it out.")

    def compare(outputs: Tensor, others: Tensor | None = None) -> Tensor:
        return win_probabilities(outputs, tau, others=others, bfloat16=True)

    return compare
