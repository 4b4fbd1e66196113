"""What evaluation says of one reward: accuracy on pairs, calibration, correlation with ratings, classification.

Accuracies have the two definitions in use (`rewards.preferences.accuracy`): a pair is right when the probability of
what people preferred is above one half, and at one half it is a tie.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rewards.evaluation.bootstrap import Floats, Interval
from rewards.evaluation.clusters import Clusters
from rewards.evaluation.judged import Judged
from rewards.evaluation.metrics import (
    Bin,
    auc,
    best_threshold,
    calibration_error,
    chances,
    decisions,
    kendall,
    pearson,
    reliability,
    spearman,
)
from rewards.evaluation.records import Data
from rewards.preferences import accuracy

UNNAMED = "(none)"  # the category of what has none
KENDALL = 4000  # items beyond which all n² pairs in every resample would take minutes: no interval


@dataclass(frozen=True)
class Accuracies:
    """How often the preferred side was preferred.

    Attributes:
        n: pairs.
        accuracy_with_ties: of all pairs; a tie is an error.
        accuracy_without_ties: of those that are no tie; NaN if all are.
        ties: how many pairs are.
    """

    n: int
    accuracy_with_ties: Interval
    accuracy_without_ties: Interval
    ties: int


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities mean what they say.

    Attributes:
        tau: sigmoid(margin / tau) is the probability; None where they are no preferences.
        fitted: whether tau was chosen on these very pairs, which flatters the error.
        error: expected calibration error over ten bins of equal width.
        bins: the reliability diagram; of pairs the likelier side is forecast, so from one half on.
    """

    tau: float | None
    fitted: bool
    error: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Ratings:
    """Agreement with ratings.

    Attributes:
        n: pictures.
        pearson: over all pictures; None where ratings or scores of different groups cannot be compared, like the next.
        spearman: of the ranks.
        kendall: tau-b.
        within: mean over groups of Kendall's tau-b among their candidates; NaN without groups of two ratings.
        groups: how many there are.
    """

    n: int
    pearson: Interval | None
    spearman: Interval | None
    kendall: Interval | None
    within: Interval
    groups: int


@dataclass(frozen=True)
class Labels:
    """Agreement with labels.

    Attributes:
        n: pictures.
        positive: how many are of the better class.
        auc: probability that one of these scores above one of the others, a tie counting one half.
        threshold: a score from which on a picture is called positive.
        accuracy: of the calls.
        f1: of the calls, like precision and recall of the positive class.
        precision: of those called positive, how many are.
        recall: of the positive ones, how many are called so.
        best_threshold: that with the highest F1 on these very pictures.
        best_f1: that F1, an upper bound.
        calibration: of sigmoid(score) as the probability of the positive class.
    """

    n: int
    positive: int
    auc: Interval
    threshold: float
    accuracy: Interval
    f1: Interval
    precision: Interval
    recall: Interval
    best_threshold: float
    best_f1: float
    calibration: Calibration


def accuracies(found: Judged, clusters: Clusters, where: NDArray[np.bool_] | None = None) -> Accuracies:
    """Both accuracies, of all pairs or of those in `where`, (n,)."""
    inside = np.ones(len(found.margins), dtype=bool) if where is None else where
    right, ties = inside & (found.probabilities > 0.5), inside & (found.probabilities == 0.5)
    values = accuracy(torch.from_numpy(found.probabilities[inside]))
    with_ties = clusters.ratio(right.astype(float), inside.astype(float))
    without = clusters.ratio(right.astype(float), (inside & ~ties).astype(float))
    return Accuracies(
        int(inside.sum()),
        Interval(values.with_ties, with_ties.low, with_ties.high),
        Interval(values.without_ties, without.low, without.high),
        int(ties.sum()),
    )


def by_category(found: Judged, categories: Sequence[str], clusters: Clusters) -> Mapping[str, Accuracies]:
    """Accuracies of each category, in the order of their names; empty where there is only one."""
    names = sorted(set(categories))
    if len(names) < 2:
        return {}
    of_pair = np.array(categories)
    return {name or UNNAMED: accuracies(found, clusters, of_pair == name) for name in names}


def calibrations(found: Judged) -> tuple[Calibration, ...]:
    """Calibration of preferences: with the temperature that the reward states, if any, and with the best there is."""
    if not len(found.margins):
        return ()
    stated = () if found.tau is None else (_of_pairs(found.probabilities, found.tau, fitted=False),)
    return (*stated, _of_pairs(chances(found.margins, found.fitted), found.fitted, fitted=True))


def ratings(found: Judged, data: Data, *, seed: int = 0) -> Ratings | None:
    """Agreement with ratings, if there are any."""
    rated = [number for number, each in enumerate(data.opinions) if each.rating is not None]
    if not rated:
        return None
    said = np.array([data.opinions[number].rating for number in rated], dtype=np.float64)
    scores, groups = found.scores[rated], [data.opinions[number].group for number in rated]
    overall: tuple[Interval | None, Interval | None, Interval | None] = (None, None, None)
    if data.comparable and found.absolute:
        overall = _overall(scores, said, Clusters(groups, seed=seed))
    taus = _within(scores, said, groups)
    within = Clusters(list(taus), seed=seed).mean(np.array(list(taus.values()))) if taus else _NOTHING
    return Ratings(len(rated), *overall, within, len(taus))


def labels(found: Judged, data: Data, threshold: float = 0.0, *, seed: int = 0) -> Labels | None:
    """Agreement with labels, if there are any of both classes and scores of different pictures can be compared."""
    labelled = [number for number, each in enumerate(data.opinions) if each.positive is not None]
    positive = np.array([data.opinions[number].positive for number in labelled], dtype=bool)
    if not found.absolute or not positive.any() or positive.all():
        return None
    scores, clusters = found.scores[labelled], Clusters([str(data.opinions[k].side) for k in labelled], seed=seed)
    called = scores >= threshold
    area = clusters.interval(lambda weights: auc(scores, positive, weights))
    bins = reliability(chances(scores, 1.0), positive.astype(float))
    calibration = Calibration(None, fitted=False, error=calibration_error(bins), bins=bins)
    best = best_threshold(scores, positive)
    return Labels(
        len(labelled), int(positive.sum()), area, threshold,
        clusters.interval(lambda weights: decisions(called, positive, weights).accuracy),
        clusters.interval(lambda weights: decisions(called, positive, weights).f1),
        clusters.interval(lambda weights: decisions(called, positive, weights).precision),
        clusters.interval(lambda weights: decisions(called, positive, weights).recall),
        *best, calibration,
    )  # fmt: skip


_NOTHING = Interval(math.nan, math.nan, math.nan)


def _of_pairs(probabilities: Floats, tau: float, *, fitted: bool) -> Calibration:
    """Of the likelier side of each pair: how likely it was called, and how often people preferred it."""
    came_true = np.where(probabilities == 0.5, 0.5, probabilities > 0.5)
    bins = reliability(np.maximum(probabilities, 1 - probabilities), came_true, low=0.5)
    return Calibration(tau, fitted, calibration_error(bins), bins)


def _overall(scores: Floats, said: Floats, clusters: Clusters) -> tuple[Interval, Interval, Interval]:
    """Pearson, Spearman and Kendall over all pictures."""
    linear = clusters.interval(lambda weights: pearson(scores, said, weights))
    ranked = clusters.interval(lambda weights: spearman(scores, said, weights))
    if len(scores) > KENDALL:
        tau = float(kendall(scores, said, np.ones((1, len(scores))))[0])
        return linear, ranked, Interval(tau, math.nan, math.nan)
    return linear, ranked, clusters.interval(lambda weights: kendall(scores, said, weights))


def _within(scores: Floats, said: Floats, groups: Sequence[str]) -> dict[str, float]:
    """Kendall's tau-b of each group in which ratings differ; where all scores are equal it is 0."""
    members: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    taus = {}
    for group, inside in members.items():
        if len(set(said[inside].tolist())) > 1:
            tau = float(kendall(scores[inside], said[inside], np.ones((1, len(inside))))[0])
            taus[group] = 0.0 if math.isnan(tau) else tau
    return taus
