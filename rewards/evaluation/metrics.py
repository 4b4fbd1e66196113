"""Agreement of scores with people, as functions of how much each item counts.

Every statistic takes weights (R, n): one row for each resample of n items, of any scale; a row of ones gives the
statistic itself, counts give that of a resample. It returns (R,), NaN where there is none, for example without
variation.

    Pearson      correlation of the values
    Spearman     Pearson of the ranks, of ties their mean
    Kendall      tau-b: (concordant − discordant) / √(pairs untied in x · pairs untied in y)
    AUC          P(a positive item scores above a negative one), a tie counting one half
    F1           2 TP / (2 TP + FP + FN), of the positive class

References:
    Kendall, "The Treatment of Ties in Ranking Problems", 1945: tau-b.
    Hanley & McNeil, 1982: the area under the curve as that probability.
    Guo et al., "On Calibration of Modern Neural Networks", 2017: expected calibration error, fitting a temperature.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewards.evaluation.bootstrap import Floats

_BLOCK = 1024  # rows of a matrix of pairs in memory
_STEPS = 200


class Decisions(NamedTuple):
    """How a threshold decides, each (R,) and NaN where it divides by nothing.

    Attributes:
        accuracy: share of right decisions.
        f1: harmonic mean of precision and recall of the positive class.
        precision: of what is called positive, how much is.
        recall: of what is positive, how much is called so.
    """

    accuracy: Floats
    f1: Floats
    precision: Floats
    recall: Floats


class Bin(NamedTuple):
    """Forecasts of about the same probability.

    Attributes:
        low: from this probability on.
        high: below this one; the last bin includes it.
        size: how many.
        forecast: their mean probability.
        observed: how often it came true.
    """

    low: float
    high: float
    size: int
    forecast: float
    observed: float


def pearson(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Correlation of x and y, (n,) each."""
    return _correlation(np.broadcast_to(x, weights.shape), np.broadcast_to(y, weights.shape), weights)


def spearman(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Correlation of the ranks of x and y, (n,) each, in every resample anew."""
    return _correlation(ranks(x, weights), ranks(y, weights), weights)


def kendall(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Kendall's tau-b of x and y, (n,) each; all n² pairs, some at a time."""
    agreed, untied_x, untied_y = (np.zeros(len(weights)) for _ in range(3))
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        in_x, in_y = np.sign(x[rows, None] - x), np.sign(y[rows, None] - y)  # (B, n)
        for total, signs in ((agreed, in_x * in_y), (untied_x, np.abs(in_x)), (untied_y, np.abs(in_y))):
            total += ((weights[:, rows] @ signs) * weights).sum(1)
    return _ratio(agreed, np.sqrt(untied_x * untied_y))


def auc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Area under the receiver operating characteristic of scores (n,)."""
    order, starts = _tied(scores)
    won = np.add.reduceat((weights * positive)[:, order], starts, axis=1)  # (R, values)
    lost = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    below = lost.cumsum(1) - lost / 2
    return _ratio((won * below).sum(1), won.sum(1) * lost.sum(1))


def decisions(called: NDArray[np.bool_], positive: NDArray[np.bool_], weights: Floats) -> Decisions:
    """How well (n,) items were called positive."""
    hits, calls, truths = ((weights * which).sum(1) for which in (called & positive, called, positive))
    right = (weights * (called == positive)).sum(1)
    return Decisions(
        _ratio(right, weights.sum(1)), _ratio(2 * hits, calls + truths), _ratio(hits, calls), _ratio(hits, truths)
    )


def best_threshold(scores: Floats, positive: NDArray[np.bool_]) -> tuple[float, float]:
    """The threshold from which on calling a score positive gives the highest F1, and that F1.

    Chosen on the very data that it is measured on, so an upper bound of what a threshold can do.
    """
    order = np.argsort(-scores, kind="stable")
    hits, calls = positive[order].cumsum(), np.arange(1, len(scores) + 1)
    last = np.append(np.diff(scores[order]) != 0, True)  # of those with one score the last, since all are called
    f1 = np.where(last, 2 * hits / (calls + positive.sum()), -1.0)
    best = int(f1.argmax())
    return float(scores[order][best]), float(f1[best])


def ranks(values: Floats, weights: Floats) -> Floats:
    """Ranks (R, n) of (n,) values: the weight below each, and half of the weight of its equals, itself included."""
    order, starts = _tied(values)
    mass = np.add.reduceat(weights[:, order], starts, axis=1)  # (R, values)
    middle = mass.cumsum(1) - mass / 2
    place = np.empty(len(values), dtype=np.intp)
    place[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(values))))
    found: Floats = middle[:, place]
    return found


def reliability(forecasts: Floats, outcomes: Floats, *, low: float = 0.0, bins: int = 10) -> tuple[Bin, ...]:
    """Forecasts (n,) in bins of equal width from `low` to 1 with how often they came true; empty bins are left out.

    Args:
        forecasts: probabilities.
        outcomes: (n,) from 0 to 1, whether it came true.
        low: the lowest possible forecast; 1/2 where the likelier side is forecast.
        bins: how many.
    """
    edges = np.linspace(low, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, forecasts, side="right") - 1, 0, bins - 1)
    found = []
    for number in range(bins):
        inside = place == number
        if inside.any():
            means = float(forecasts[inside].mean()), float(outcomes[inside].mean())
            found.append(Bin(float(edges[number]), float(edges[number + 1]), int(inside.sum()), *means))
    return tuple(found)


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """Expected calibration error: mean distance of forecast and outcome over the bins, each as often as it occurs."""
    total = sum(each.size for each in bins)
    return sum(each.size * abs(each.forecast - each.observed) for each in bins) / total if total else math.nan


def fitted_tau(margins: Floats) -> float:
    """The temperature under which sigmoid(margin / tau) explains best that every one of (n,) pairs was preferred.

    Bisection on the slope of a concave likelihood. 0 where all margins are right, infinity where they are no better
    than chance.
    """
    margins = margins[margins != 0]
    if not len(margins) or margins.sum() <= 0:
        return math.inf
    if (margins > 0).all():
        return 0.0

    def slope(steepness: float) -> float:
        return float((margins * _sigmoid(-steepness * margins)).sum())

    low, high = 0.0, 1 / float(np.abs(margins).mean())
    while slope(high) > 0:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return 2 / (low + high)


def chances(margins: Floats, tau: float) -> Floats:
    """sigmoid(margin / tau), the probability of being preferred; at tau 0 its limit."""
    if tau == 0:
        limits: Floats = (np.sign(margins) + 1) / 2
        return limits
    return _sigmoid(margins / tau)


def _sigmoid(values: Floats) -> Floats:
    halved: Floats = 0.5 * (1 + np.tanh(values / 2))
    return halved


def _tied(values: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The order of (n,) values, and where in it each new value starts."""
    order = np.argsort(values, kind="stable")
    changes = np.diff(values[order]) != 0
    return order, np.flatnonzero(np.append(True, changes))


def _correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Pearson's correlation of x and y, (R, n) each."""
    x, y = _centred(x, weights), _centred(y, weights)
    return _ratio((weights * x * y).sum(1), np.sqrt((weights * x * x).sum(1) * (weights * y * y).sum(1)))


def _centred(values: Floats, weights: Floats) -> Floats:
    """Values less their mean; exactly 0 where they differ by no more than rounding."""
    away = values - _ratio((weights * values).sum(1), weights.sum(1))[:, None]
    centred: Floats = np.where(np.abs(away) > 1e-12 * np.abs(values).max(1, keepdims=True), away, 0.0)
    return centred


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, NaN where the denominator is 0."""
    whole = denominator != 0
    quotient: Floats = np.where(whole, numerator / np.where(whole, denominator, 1.0), math.nan)
    return quotient
