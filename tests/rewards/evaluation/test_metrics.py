"""Statistics against numbers worked out by hand, and against their definitions on random data."""

import math

import numpy as np
import pytest

from rewards.evaluation.bootstrap import Floats
from rewards.evaluation.clusters import Clusters
from rewards.evaluation.metrics import (
    auc,
    best_threshold,
    calibration_error,
    chances,
    decisions,
    fitted_tau,
    kendall,
    pearson,
    ranks,
    reliability,
    spearman,
)

ONES = np.ones((1, 5))


def array(*values: float) -> Floats:
    return np.array(values, dtype=np.float64)


def test_correlations_by_hand() -> None:
    x, y = array(1, 2, 3, 4, 5), array(2, 1, 4, 3, 5)
    assert pearson(x, y, ONES) == pytest.approx(0.8)  # 1 − 6·4 / (5·24), values being ranks
    assert spearman(x, y, ONES) == pytest.approx(0.8)
    assert kendall(x, y, ONES) == pytest.approx(0.6)  # 8 concordant, 2 discordant of 10
    assert spearman(x**3, np.exp(y), ONES) == pytest.approx(0.8)  # ranks alone count
    assert pearson(x, 3 - 2 * x, ONES) == pytest.approx(-1)


def test_correlations_with_ties_by_hand() -> None:
    x, y = array(1, 1, 2, 3), array(1, 2, 2, 3)
    ones = np.ones((1, 4))
    assert kendall(x, y, ones) == pytest.approx(4 / 5)  # 4 concordant; 5 pairs untied in x, 5 in y
    # ranks 1.5 1.5 3 4 and 1 2.5 2.5 4: covariance 3.75, variance 4.5 each
    assert spearman(x, y, ones) == pytest.approx(3.75 / 4.5)


def test_counts_as_weights_are_repetitions() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 30).astype(float), rng.normal(size=30).round(1)
    positive, counts = rng.random(30) < 0.4, rng.integers(0, 4, 30)
    twice = [np.repeat(values, counts) for values in (x, y)]
    ones, weights = np.ones((1, counts.sum())), counts[None].astype(float)
    for statistic in (pearson, spearman, kendall):
        assert statistic(x, y, weights) == pytest.approx(statistic(*twice, ones))
    assert auc(x, positive, weights) == pytest.approx(auc(twice[0], np.repeat(positive, counts), ones))


def test_kendall_is_a_sum_over_pairs_however_it_is_cut() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 50, 1500).astype(float), rng.integers(0, 50, 1500).astype(float)
    in_x, in_y = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    expected = (in_x * in_y).sum() / math.sqrt((in_x != 0).sum() * (in_y != 0).sum())
    assert kendall(x, y, np.ones((1, 1500))) == pytest.approx(expected)


def test_ranks_of_ties_are_their_mean() -> None:
    assert ranks(array(10, 30, 20, 20), np.ones((1, 4))) == pytest.approx(array(1, 4, 2.5, 2.5)[None] - 0.5)


def test_without_variation_there_is_no_correlation() -> None:
    for statistic in (pearson, spearman, kendall):
        assert math.isnan(statistic(np.full(5, 0.1), array(1, 2, 3, 4, 5), ONES)[0])


def test_the_area_under_the_curve_by_hand() -> None:
    positive = np.array([True, True, False, False, False])
    assert auc(array(3, 1, 2, 1, 0), positive, ONES) == pytest.approx((3 + 1.5) / 6)
    assert auc(array(3, 2, 1, 1, 0), positive, ONES) == pytest.approx(1)
    assert math.isnan(auc(array(3, 2, 1, 1, 0), np.ones(5, dtype=bool), ONES)[0])


def test_the_area_is_a_probability() -> None:
    rng = np.random.default_rng(2)
    scores, positive = rng.integers(0, 20, 200).astype(float), rng.random(200) < 0.3
    won = scores[positive][:, None] - scores[~positive]
    expected = ((won > 0) + 0.5 * (won == 0)).mean()
    assert auc(scores, positive, np.ones((1, 200))) == pytest.approx(expected)


def test_decisions_by_hand() -> None:
    called, positive = np.array([1, 1, 1, 0, 0], dtype=bool), np.array([1, 1, 0, 1, 0], dtype=bool)
    assert np.ravel(decisions(called, positive, ONES)) == pytest.approx([3 / 5, 2 / 3, 2 / 3, 2 / 3])
    weights = array(1, 0, 2, 1, 0)[None]
    assert np.ravel(decisions(called, positive, weights)) == pytest.approx([1 / 4, 2 / 5, 1 / 3, 1 / 2])


def test_the_best_threshold_is_the_best_of_all() -> None:
    rng = np.random.default_rng(3)
    scores, positive = rng.integers(0, 12, 60).astype(float), rng.random(60) < 0.4
    threshold, f1 = best_threshold(scores, positive)
    every = {mark: decisions(scores >= mark, positive, np.ones((1, 60))).f1[0] for mark in set(scores.tolist())}
    assert f1 == pytest.approx(max(every.values()))
    assert every[threshold] == pytest.approx(f1)


def test_reliability_and_its_error_by_hand() -> None:
    bins = reliability(array(0.05, 0.15, 0.15, 1.0), array(0, 0, 1, 1))
    assert [each.size for each in bins] == [1, 2, 1]
    assert [each.observed for each in bins] == [0, 0.5, 1]
    assert calibration_error(bins) == pytest.approx((0.05 + 2 * 0.35 + 0) / 4)
    assert reliability(array(0.55), array(1), low=0.5)[0][:2] == pytest.approx((0.55, 0.6))


def test_a_forecast_that_is_the_truth_is_calibrated() -> None:
    rng = np.random.default_rng(4)
    forecasts = rng.random(20_000)
    outcomes = (rng.random(20_000) < forecasts).astype(float)
    assert calibration_error(reliability(forecasts, outcomes)) < 0.015
    assert calibration_error(reliability(forecasts**2, outcomes)) > 0.1


@pytest.mark.parametrize("tau", [0.1, 1.0, 7.0])
def test_the_temperature_of_simulated_preferences_is_found(tau: float) -> None:
    rng = np.random.default_rng(5)
    margins = rng.normal(scale=2 * tau, size=20_000)
    preferred = rng.random(20_000) < 1 / (1 + np.exp(-margins / tau))
    assert fitted_tau(np.where(preferred, margins, -margins)) == pytest.approx(tau, rel=0.05)


def test_the_temperature_where_there_is_none() -> None:
    assert fitted_tau(array(0.2, 3)) == 0
    assert fitted_tau(array(-0.2, 0.1)) == math.inf
    assert fitted_tau(array()) == math.inf
    assert chances(array(-1, 0, 2), 0) == pytest.approx(array(0, 0.5, 1))
    assert chances(array(-1, 0, 2), math.inf) == pytest.approx(array(0.5, 0.5, 0.5))
    assert chances(array(math.log(3)), 1) == pytest.approx(0.75)


def test_pairs_of_one_prompt_are_drawn_together() -> None:
    right = np.repeat(np.arange(40) % 2, 10).astype(float)  # ten pairs a prompt, all right or all wrong
    together = Clusters([f"{k // 10}" for k in range(400)]).mean(right)
    apart = Clusters([f"{k}" for k in range(400)]).mean(right)
    assert (together.value, apart.value) == pytest.approx((0.5, 0.5))
    assert together.high - together.low == pytest.approx(math.sqrt(10) * (apart.high - apart.low), rel=0.15)


def test_a_weighted_statistic_has_the_interval_of_its_mean() -> None:
    values = np.random.default_rng(6).normal(size=80)
    clusters = Clusters([f"{k}" for k in range(80)])
    weighted = clusters.interval(lambda weights: weights @ values / weights.sum(1))
    mean = clusters.mean(values)
    assert (weighted.value, weighted.low, weighted.high) == pytest.approx((mean.value, mean.low, mean.high))


def test_very_many_prompts_are_put_together() -> None:
    values = np.random.default_rng(7).normal(size=9000)
    interval = Clusters([f"{k}" for k in range(9000)]).mean(values)
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(9000), rel=0.1)
