"""What is said of a reward, on data small enough to work out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from rewards.errors import RewardError
from rewards.evaluation.choices import choices, expected_best
from rewards.evaluation.clusters import Clusters
from rewards.evaluation.judged import Judged, Outputs, compared, judged
from rewards.evaluation.records import Data, Opinion, Preference, with_pairs
from rewards.evaluation.summaries import accuracies, by_category, calibrations, labels, ratings
from rewards.llava.heads import win_probabilities
from rewards.training.records import Pair, Side


def side(name: str, prompt: str = "a cat") -> Side:
    return Side(Path(f"{name}.png"), prompt)


def preference(chosen: str, rejected: str, category: str = "", group: str = "") -> Preference:
    return Preference(Pair(side(chosen), side(rejected)), category, group or f"{chosen}{rejected}")


def scored(**scores: float) -> Outputs:
    return {side(name): (score,) for name, score in scores.items()}


FOUR = Data(
    (preference("a", "b", "x"), preference("b", "c", "x"), preference("c", "d", "y"), preference("d", "a", "y"))
)
SCORES = scored(a=3, b=1, c=1, d=0)  # right, tie, right, wrong


def clusters_of(data: Data) -> Clusters:
    return Clusters([each.group for each in data.preferences])


def test_the_two_accuracies_of_a_list_with_a_tie() -> None:
    found = accuracies(judged("r", FOUR, SCORES), clusters_of(FOUR))
    assert (found.n, found.ties) == (4, 1)
    assert found.accuracy_with_ties.value == 0.5
    assert found.accuracy_without_ties.value == pytest.approx(2 / 3)
    assert found.accuracy_with_ties.low < 0.5 < found.accuracy_with_ties.high


def test_accuracies_of_categories() -> None:
    categories = [each.category for each in FOUR.preferences]
    found = by_category(judged("r", FOUR, SCORES), categories, clusters_of(FOUR))
    assert {name: (each.n, each.accuracy_with_ties.value, each.ties) for name, each in found.items()} == {
        "x": (2, 0.5, 1),
        "y": (2, 0.5, 0),
    }
    assert by_category(judged("r", FOUR, SCORES), ["x"] * 4, clusters_of(FOUR)) == {}


def test_a_difference_too_small_for_a_probability_is_no_tie() -> None:
    data = Data((preference("a", "b"), preference("b", "a")))
    found = judged("r", data, scored(a=1e-18, b=0), tau=1e9)
    assert found.probabilities[0] > 0.5 > found.probabilities[1]


def test_rounding_to_bfloat16_makes_the_published_ties() -> None:
    """With tau 0.1 differences from -0.00039 to 0.00078 become exactly one half."""
    data = Data(tuple(preference(name, "zero") for name in "abcd"))
    scores = scored(a=0.0007, b=-0.00035, c=0.0012, d=-0.0006, zero=0)
    rounded = judged("r", data, scores, tau=0.1, bfloat16=True)
    assert rounded.probabilities[:2].tolist() == [0.5, 0.5]
    assert rounded.probabilities[2] > 0.5 > rounded.probabilities[3]
    assert (judged("r", data, scores, tau=0.1).probabilities != 0.5).all()
    with pytest.raises(RewardError, match="temperature"):
        judged("r", data, scores, bfloat16=True)


def test_preferences_of_a_rotation_are_won_in_a_circle() -> None:
    """Three vectors on a circle: each is preferred to the next, which no scores could say."""
    turn = 2 * math.pi / 3
    outputs = {side(name): (math.cos(k * turn), math.sin(k * turn)) for k, name in enumerate("abc")}

    def compare(one: Tensor, other: Tensor | None = None) -> Tensor:
        return win_probabilities(one, 0.1, others=other)

    circle = Data((preference("a", "b"), preference("b", "c"), preference("c", "a")))
    data = Data(circle.preferences, tuple(Opinion(side(name), rating=1.0, group="g") for name in "abc"))
    found = compared("gpm", data, outputs, compare)
    assert found.probabilities == pytest.approx(1 / (1 + np.exp(-math.sin(turn) / 0.1)), abs=1e-4)
    assert accuracies(found, clusters_of(data)).accuracy_with_ties.value == 1
    assert found.scores == pytest.approx(0.5)  # Borda: each wins once and loses once
    assert not found.absolute
    assert ratings(found, data).pearson is None


def test_pairs_follow_from_ratings_within_a_group() -> None:
    rated = [("a", 3.0, "g"), ("b", 1.0, "g"), ("c", 1.0, "g"), ("d", 2.0, "h")]
    data = with_pairs(Data((), tuple(Opinion(side(name), rating=r, group=group) for name, r, group in rated)))
    assert [(each.pair.chosen.image.stem, each.pair.rejected.image.stem) for each in data.preferences] == [
        ("a", "b"),
        ("a", "c"),
    ]
    assert with_pairs(FOUR) is FOUR


def rated(scores: list[float], said: list[float], group: str = "g") -> tuple[Judged, Data]:
    sides = [side(f"{group}{k}") for k in range(len(scores))]
    data = Data((), tuple(Opinion(each, rating=r, group=group) for each, r in zip(sides, said, strict=True)))
    return judged("r", data, {each: (s,) for each, s in zip(sides, scores, strict=True)}), data


def test_agreement_with_ratings() -> None:
    found = ratings(*rated([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]))
    assert (found.n, found.groups) == (5, 1)
    assert found.spearman.value == pytest.approx(0.8)
    assert found.kendall.value == found.within.value == pytest.approx(0.6)
    equal = ratings(*rated([1, 1], [2, 1]))
    assert equal.within.value == 0
    assert math.isnan(equal.pearson.value)


def test_ranks_of_different_prompts_are_not_correlated() -> None:
    found, data = rated([1, 2, 3], [-3, -2, -1])
    assert ratings(found, Data((), data.opinions, comparable=False)).spearman is None
    assert ratings(found, Data((), data.opinions, comparable=False)).within.value == pytest.approx(1)


def test_agreement_with_labels() -> None:
    logits = {"a": 2.0, "b": 1.0, "c": -1.0, "d": 0.5, "e": -2.0}
    positive = {"a": True, "b": True, "c": True, "d": False, "e": False}
    data = Data((), tuple(Opinion(side(name), positive=positive[name]) for name in logits))
    found = labels(judged("r", data, scored(**logits)), data)
    assert (found.n, found.positive) == (5, 3)
    assert found.auc.value == pytest.approx(5 / 6)
    assert [found.accuracy.value, found.f1.value, found.recall.value] == pytest.approx([3 / 5, 2 / 3, 2 / 3])
    assert (found.best_threshold, found.best_f1) == pytest.approx((-1, 6 / 7))
    last = found.calibration.bins[-1]
    assert (last.size, last.observed, last.forecast) == pytest.approx((1, 1, 1 / (1 + math.exp(-2))))
    assert labels(judged("r", data, scored(**logits)), Data((), data.opinions[:1])) is None


def test_a_known_temperature_is_reported_beside_the_fitted_one() -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(size=4000)
    won = rng.random(4000) < 1 / (1 + np.exp(-margins / 0.5))
    names = [f"n{k}" for k in range(4000)]
    outputs = {side(name): (float(m if w else -m),) for name, m, w in zip(names, margins, won, strict=True)}
    data = Data(tuple(preference(name, "zero") for name in names))
    stated, fitted = calibrations(judged("r", data, {**outputs, side("zero"): (0.0,)}, tau=0.1))
    assert (stated.tau, stated.fitted, fitted.fitted) == (0.1, False, True)
    assert fitted.tau == pytest.approx(0.5, rel=0.1)
    assert fitted.error < 0.03 < 0.1 < stated.error  # five times too sure
    assert len(calibrations(judged("r", data, {**outputs, side("zero"): (0.0,)}))) == 1


def test_best_of_n_is_the_mean_over_all_draws() -> None:
    from itertools import combinations

    rng = np.random.default_rng(1)
    scores, said = rng.normal(size=7), rng.normal(size=7)
    for n in (1, 2, 5, 7):
        draws = [max(draw, key=lambda k: scores[k]) for draw in combinations(range(7), n)]
        assert expected_best(scores, said, n) == pytest.approx(np.mean(said[draws]))


def test_regret_of_a_perfect_and_of_a_reversed_reward() -> None:
    said = [1.0, 2.0, 4.0, 9.0]
    perfect, reversed_ = choices(*rated(said, said)), choices(*rated([-s for s in said], said))
    assert [each.n for each in perfect] == [2, 4]
    assert [each.regret.value for each in perfect] == pytest.approx([0, 0])
    assert perfect[-1].gain.value == pytest.approx(1)
    assert reversed_[-1].regret.value == pytest.approx(8)
    assert reversed_[-1].gain.value == pytest.approx((1 - 4) / (9 - 4))


def test_choices_end_where_half_of_the_prompts_have_no_more_candidates() -> None:
    sides = [(group, k) for group, count in (("g", 3), ("h", 3), ("i", 9)) for k in range(count)]
    data = Data((), tuple(Opinion(side(f"{group}{k}"), rating=float(k), group=group) for group, k in sides))
    found = choices(judged("r", data, {side(f"{group}{k}"): (float(k),) for group, k in sides}), data)
    assert [(each.n, each.groups) for each in found] == [(2, 3), (3, 3)]
