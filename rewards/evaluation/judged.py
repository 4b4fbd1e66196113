"""What one reward made of the data: the numbers that all summaries are made from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rewards.errors import RewardError
from rewards.evaluation.bootstrap import Floats
from rewards.evaluation.metrics import chances, fitted_tau
from rewards.evaluation.records import Data
from rewards.llava.heads import win_probabilities
from rewards.preferences import borda
from rewards.training.records import Side

_BLOCK = 256  # pairs compared at a time
_CERTAIN = 1e-9  # log-odds of a certainty are infinite

Outputs = Mapping[Side, Sequence[float]]  # what a reward gave for each side: one score, or what its head gave


class Compare(Protocol):
    """Of `rewards.preferences.Compares`: (n, d) and (m, d) outputs become (n, m) probabilities."""

    def __call__(self, outputs: Tensor, others: Tensor | None = None) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Judged:
    """One reward's numbers for all of the data.

    Attributes:
        reward: its specification.
        margins: (n,) score of the chosen side less that of the rejected one; log-odds of a reward that only compares.
        probabilities: (n,) that the chosen side is preferred; by `fitted` where no temperature is known.
        tau: sigmoid(margin / tau) is the probability; None if nobody knows it.
        fitted: the tau that explains these very pairs best.
        scores: (m,) of the opinions' pictures; of a reward that only compares relative to their group.
        absolute: whether scores of different groups can be compared.
    """

    reward: str
    margins: Floats
    probabilities: Floats
    tau: float | None
    fitted: float
    scores: Floats
    absolute: bool


def judged(reward: str, data: Data, outputs: Outputs, *, tau: float | None = None, bfloat16: bool = False) -> Judged:
    """What a reward with absolute scores made of the data.

    Args:
        reward: its specification.
        data: what people said.
        outputs: the score of every side, as a sequence of one.
        tau: sigmoid(difference / tau) is the probability of a preference.
        bfloat16: round scores and probabilities as the published evaluation of LLaVA-Reward does, which makes ties;
            `tau` must be known.

    Raises:
        RewardError: rounding is asked for without a temperature.
    """
    scores = np.array([outputs[each.side][0] for each in data.opinions])
    margins = np.array(
        [outputs[each.pair.chosen][0] - outputs[each.pair.rejected][0] for each in data.preferences], dtype=np.float64
    )
    fitted = fitted_tau(margins)
    if bfloat16:
        if tau is None:
            raise RewardError(f"Rounding to bfloat16 needs the temperature of {reward!r}, which nobody knows; give it.")
        rounded = _official(data, outputs, tau)
        return Judged(reward, margins, rounded, tau, fitted, scores, absolute=True)
    known = chances(margins, fitted if tau is None else tau)
    tiny = (known == 0.5) & (margins != 0)  # which is no tie
    decided = np.where(tiny, 0.5 + np.sign(margins) * 2**-53, known)
    return Judged(reward, margins, decided, tau, fitted, scores, absolute=True)


def compared(reward: str, data: Data, outputs: Outputs, compare: Compare) -> Judged:
    """What a reward that only compares made of the data; candidates of a group get Borda's scores."""
    chosen = [outputs[each.pair.chosen] for each in data.preferences]
    rejected = [outputs[each.pair.rejected] for each in data.preferences]
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(chosen), _BLOCK)]
    found = [compare(torch.tensor(chosen[part]), torch.tensor(rejected[part])).diagonal() for part in blocks]
    probabilities = torch.cat([torch.zeros(0), *found]).double().numpy()
    safe = probabilities.clip(_CERTAIN, 1 - _CERTAIN)
    margins = np.log(safe) - np.log1p(-safe)
    scores = _borda(data, outputs, compare)
    return Judged(reward, margins, probabilities, 1.0, fitted_tau(margins), scores, absolute=False)


def _official(data: Data, outputs: Outputs, tau: float) -> Floats:
    """Probabilities (n,) with every step rounded to bfloat16."""
    pairs = [(outputs[each.pair.chosen], outputs[each.pair.rejected]) for each in data.preferences]
    found = [
        win_probabilities(torch.tensor([chosen]), tau, others=torch.tensor([rejected]), bfloat16=True).item()
        for chosen, rejected in pairs
    ]
    return np.array(found, dtype=np.float64)


def _borda(data: Data, outputs: Outputs, compare: Compare) -> Floats:
    groups: dict[str, list[int]] = {}
    for number, opinion in enumerate(data.opinions):
        groups.setdefault(opinion.group, []).append(number)
    scores = np.full(len(data.opinions), math.nan)
    for members in groups.values():
        group = torch.tensor([outputs[data.opinions[number].side] for number in members])
        scores[members] = borda(compare(group)).numpy()
    return scores
