"""All that is said of one reward, of several side by side, and as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

import numpy as np

from rewards.errors import RewardError
from rewards.evaluation.bootstrap import Interval
from rewards.evaluation.choices import Choice, choices
from rewards.evaluation.clusters import Clusters
from rewards.evaluation.judged import Judged
from rewards.evaluation.records import Data
from rewards.evaluation.summaries import (
    Accuracies,
    Calibration,
    Labels,
    Ratings,
    accuracies,
    by_category,
    calibrations,
    labels,
    ratings,
)

SCHEMA = 1


@dataclass(frozen=True)
class Evaluation:
    """What is said of one reward; None or empty where the data has nothing to say it by.

    Attributes:
        reward: its specification.
        pairs: accuracy on preferences.
        mean_probability: of what people preferred; None without a temperature that the reward states.
        categories: accuracy on the pairs of each.
        calibration: of the probability of a preference, with the stated temperature and with the best one.
        ratings: agreement with ratings.
        labels: agreement with labels.
        best_of_n: what its choices are worth to people.
    """

    reward: str
    pairs: Accuracies | None
    mean_probability: Interval | None
    categories: Mapping[str, Accuracies]
    calibration: tuple[Calibration, ...]
    ratings: Ratings | None
    labels: Labels | None
    best_of_n: tuple[Choice, ...]


@dataclass(frozen=True)
class Difference:
    """How much more accurate the first reward is than another, on the same pairs.

    Attributes:
        reward: the first one.
        against: the other.
        accuracy_with_ties: first less other, paired.
    """

    reward: str
    against: str
    accuracy_with_ties: Interval


def evaluate(found: Judged, data: Data, *, threshold: float = 0.0, seed: int = 0) -> Evaluation:
    """Everything that the data has to say of one reward.

    Args:
        found: what the reward made of the data.
        data: what people said.
        threshold: score from which on a picture is called positive.
        seed: of all bootstraps.
    """
    pairs, categories, likely = None, dict[str, Accuracies](), None
    if data.preferences:
        clusters = Clusters([each.group for each in data.preferences], seed=seed)
        pairs = accuracies(found, clusters)
        categories = dict(by_category(found, [each.category for each in data.preferences], clusters))
        likely = None if found.tau is None else clusters.mean(found.probabilities)
    return Evaluation(
        found.reward, pairs, likely, categories, calibrations(found), ratings(found, data, seed=seed),
        labels(found, data, threshold, seed=seed), choices(found, data, seed=seed),
    )  # fmt: skip


def differences(found: Sequence[Judged], data: Data, *, seed: int = 0) -> tuple[Difference, ...]:
    """The first reward against each of the others, over the same resamples of the prompts."""
    if not data.preferences:
        return ()
    clusters = Clusters([each.group for each in data.preferences], seed=seed)
    first, *others = [(each.probabilities > 0.5).astype(np.float64) for each in found]
    names = [each.reward for each in found]
    return tuple(
        Difference(names[0], name, clusters.mean(first - other)) for name, other in zip(names[1:], others, strict=True)
    )


def as_json(about: Mapping[str, object], all_of: Sequence[Evaluation], found: Sequence[Difference]) -> dict[str, Any]:
    """An evaluation of several rewards; the numbers of the first stand at the top level, too.

    An interval becomes its value and, under the name with _interval behind it, both ends. What is not finite becomes
    null. Without pairs the two accuracies are null and n counts pictures.

    Raises:
        RewardError: there is no reward.
    """
    if not all_of:
        raise RewardError("Got no evaluation; expected that of at least one reward.")
    rewards = {each.reward: _of_one(each) for each in all_of}
    return {
        "schema": SCHEMA,
        **{name: _plain(value) for name, value in about.items()},
        **rewards[all_of[0].reward],
        "rewards": rewards,
        "differences": [_plain(each) for each in found],
    }


def _of_one(evaluation: Evaluation) -> dict[str, Any]:
    whole = cast("dict[str, Any]", _plain(evaluation))
    pairs: dict[str, Any] = whole.pop("pairs") or {"accuracy_with_ties": None, "accuracy_without_ties": None}
    others = next((part["n"] for part in (whole["labels"], whole["ratings"]) if part), 0)
    reward = whole.pop("reward")
    return {"reward": reward, "n": others, **pairs, **whole}


def _plain(value: object) -> object:
    """Dataclasses as objects, intervals as two entries, numbers that are not finite as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, Mapping):
        entries: dict[str, object] = {}
        for name, part in value.items():
            entries[str(name)] = _plain(part.value if isinstance(part, Interval) else part)
            if isinstance(part, Interval):
                entries[f"{name}_interval"] = [_plain(part.low), _plain(part.high)]
        return entries
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
