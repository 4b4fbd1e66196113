"""Scores from comparisons: pictures of one prompt meet each other, and Borda's count ranks them.

A reward that only compares (general preference) gives each picture a few numbers and each pair a probability. The score
of a picture is the mean probability with which it is preferred to the other pictures of its prompt, from 0 to 1, and
one half for a picture alone; it says nothing about pictures that were not there. Why Borda: `rewards.preferences`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from bon_search.score_table import Outputs, Row
    from rewards.preferences import Compares

CYCLES = 1000  # pictures of one prompt among which cycles are looked for; beyond it the matrix is never held whole
_AT_ONCE = 1 << 20  # pairs


class Standing(NamedTuple):
    """One prompt's tournament.

    Attributes:
        rows: Its pictures with their scores, best first; ties in the order of their paths.
        report: That the preferences are cyclic, in one sentence; empty if they are not, or if nobody looked.
    """

    rows: tuple[Row, ...]
    report: str


def standings(entries: Iterable[Outputs], reward: Compares) -> list[Standing]:
    """One tournament for each prompt, in the order of the prompts; the order of the entries does not matter."""
    prompts: dict[str, list[Outputs]] = {}
    for entry in sorted(entries, key=lambda entry: entry.key):
        prompts.setdefault(entry.prompt, []).append(entry)
    return [_standing(prompts[prompt], reward) for prompt in sorted(prompts)]


def _standing(entries: Sequence[Outputs], reward: Compares) -> Standing:
    import torch

    from rewards.preferences import rank

    outputs = torch.tensor([entry.outputs for entry in entries])  # (N, d)
    report = ""
    if len(entries) <= CYCLES:
        ranking = rank(reward.chances(outputs))
        scores = ranking.scores.tolist()
        report = ranking.report([entry.image for entry in entries]) if ranking.cycle else ""
    else:
        scores = _borda(outputs, reward).tolist()
    rows = (entry.scored(score) for entry, score in zip(entries, scores, strict=True))
    return Standing(tuple(sorted(rows, key=lambda row: -row.score)), report)


def _borda(outputs: Tensor, reward: Compares) -> Tensor:
    """`rewards.preferences.borda` (N,) a few rows at a time."""
    import torch

    size = max(1, _AT_ONCE // len(outputs))
    parts = (outputs[start : start + size] for start in range(0, len(outputs), size))
    wins = [reward.chances(part, outputs).double().sum(1) for part in parts]
    return (torch.cat(wins) - 0.5) / (len(outputs) - 1)
