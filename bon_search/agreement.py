"""How far several rewards rank the same pictures alike: Spearman's correlation within a prompt, mean over prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Agreement:
    """Correlations of R rewards.

    Attributes:
        rewards: What they are called.
        spearman: (R, R), -1 … 1; NaN where one of both says the same of all pictures of each prompt.
        prompts: How many had at least two pictures that all rewards scored.
        pictures: How many these were.
    """

    rewards: tuple[str, ...]
    spearman: tuple[tuple[float, ...], ...]
    prompts: int
    pictures: int

    @property
    def table(self) -> str:
        """For people: a row and a column for each reward, numbered."""
        of = f"{self.pictures} pictures" + (
            f" of {self.prompts} prompts, mean over prompts" if self.prompts > 1 else ""
        )
        wide = max(map(len, self.rewards))
        heads = "".join(f"{f'({k})':>7}" for k in range(1, len(self.rewards) + 1))
        rows = [
            f"  ({k}) {name:<{wide}}" + "".join(f"{_shown(value):>7}" for value in row)
            for k, (name, row) in enumerate(zip(self.rewards, self.spearman, strict=True), 1)
        ]
        return "\n".join([f"agreement of the rankings (Spearman, {of}):", " " * (6 + wide) + heads, *rows])


def agreement(rewards: Sequence[str], groups: Sequence[Sequence[Sequence[float]]]) -> Agreement:
    """The agreement of rewards.

    Args:
        rewards: R names.
        groups: For each prompt R rows of scores of its pictures.
    """
    told = [rows for rows in groups if len(rows[0]) > 1]
    matrix = [
        [_mean([spearman(rows[i], rows[j]) for rows in told]) for j in range(len(rewards))] for i in range(len(rewards))
    ]
    return Agreement(tuple(rewards), tuple(map(tuple, matrix)), len(told), sum(len(rows[0]) for rows in told))


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation of two sequences; NaN if one of them is constant."""
    import torch

    from rewards.combine import ranks

    a, b = (ranks(torch.tensor(values, dtype=torch.float64)) for values in (first, second))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _shown(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:+.2f}"
