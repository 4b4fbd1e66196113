"""Curves between points that are known."""

import math

import numpy as np
import pytest

from bon_search.compare_statistics import cost_to_reach, interpolated
from rewards.evaluation.bootstrap import Bootstrap


def test_a_curve_between_its_points_is_straight_over_the_logarithm_of_cost() -> None:
    costs, qualities = np.array([4.0, 16.0]), np.array([[1.0, 3.0], [0.0, 10.0]])
    assert interpolated(costs, qualities, 8.0) == pytest.approx([2.0, 5.0])
    assert interpolated(costs, qualities, 4.0) == pytest.approx([1.0, 0.0])
    assert interpolated(costs, qualities, 16.0) == pytest.approx([3.0, 10.0])
    assert interpolated(costs[::-1], qualities[:, ::-1], 8.0) == pytest.approx([2.0, 5.0])


def test_a_curve_is_not_extrapolated() -> None:
    costs, qualities = np.array([4.0, 16.0]), np.array([[1.0, 3.0]])
    assert interpolated(costs, qualities, 3.9) is None
    assert interpolated(costs, qualities, 16.1) is None


def test_the_cost_of_a_quality() -> None:
    costs = np.array([[4.0, 16.0, 64.0]] * 5)
    qualities = np.array([[0.0, 2.0, 4.0]] * 3 + [[0.0, 3.0, 1.0]] + [[0.0, 1.0, 1.0]])
    targets = np.array([1.0, 3.0, -1.0, 1.5, 2.0])
    assert cost_to_reach(costs, qualities, targets) == pytest.approx([8.0, 32.0, 4.0, 8.0, math.inf])


def test_the_interval_of_a_cost_knows_that_it_may_never_be_reached() -> None:
    qualities = np.array([[0.0, 1.0]] * 9 + [[0.0, -9.0]])  # one prompt in ten spoils it
    costs = np.array([[1.0, 2.0]] * 10)
    interval = Bootstrap(10).interval(
        lambda shares: cost_to_reach(shares @ costs, shares @ qualities, shares @ np.full(10, 0.5))
    )
    assert interval.value == math.inf
    assert interval.low == pytest.approx(math.sqrt(2))
    assert interval.high == math.inf
