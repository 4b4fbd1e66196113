"""Intervals that cover what they promise."""

import math

import numpy as np
import pytest

from rewards.errors import RewardError
from rewards.evaluation.bootstrap import Bootstrap, Interval

LAWS = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
    "pass or fail": (lambda rng, n: (rng.random(n) < 0.8).astype(float), 0.8),
}


@pytest.mark.parametrize(("law", "prompts", "least"), [
    ("normal", 10, 0.92),
    ("normal", 24, 0.93),
    ("exponential", 24, 0.91),  # skewed: some coverage is lost at so few prompts
    ("pass or fail", 24, 0.93),
])  # fmt: skip
def test_a_95_percent_interval_covers_the_mean_of_a_known_law(law: str, prompts: int, least: float) -> None:
    draw, mean = LAWS[law]
    rng, bootstrap = np.random.default_rng(5), Bootstrap(prompts, resamples=1000)
    intervals = [bootstrap.mean(draw(rng, prompts)) for _ in range(1000)]
    covered = sum(interval.low <= mean <= interval.high for interval in intervals) / 1000
    assert least <= covered <= 0.985


def test_the_coverage_follows_the_level() -> None:
    draw, mean = LAWS["normal"]
    rng, bootstrap = np.random.default_rng(6), Bootstrap(30, level=0.5, resamples=1000)
    intervals = [bootstrap.mean(draw(rng, 30)) for _ in range(1000)]
    covered = sum(interval.low <= mean <= interval.high for interval in intervals) / 1000
    assert 0.45 <= covered <= 0.55


def test_a_large_sample_has_the_interval_of_the_central_limit_theorem() -> None:
    values = np.random.default_rng(0).normal(size=400)
    interval = Bootstrap(400).mean(values)
    half = 1.96 * values.std() / 20
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_a_skewed_sample_has_a_skewed_interval() -> None:
    values = np.random.default_rng(1).exponential(size=30)
    interval = Bootstrap(30).mean(values)
    assert interval.high - interval.value > 1.15 * (interval.value - interval.low)


def test_equal_values_leave_no_doubt() -> None:
    assert Bootstrap(7).mean(np.full(7, 0.3)) == Interval(pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0.3))


def test_one_prompt_tells_nothing_of_the_spread() -> None:
    interval = Bootstrap(1).mean(np.array([2.0]))
    assert interval.value == 2.0
    assert math.isnan(interval.low)
    assert interval.sign == 0


def test_pairing_removes_what_prompts_have_in_common() -> None:
    rng, bootstrap = np.random.default_rng(2), Bootstrap(20)
    hard = rng.normal(scale=10, size=20)  # how hard each prompt is
    ours, theirs = hard + 0.5 + rng.normal(scale=0.1, size=20), hard
    assert bootstrap.mean(ours - theirs).sign == 1
    assert bootstrap.mean(ours).low < bootstrap.mean(theirs).value  # unpaired, nobody could tell


def test_the_sign_of_an_interval() -> None:
    assert [Interval(0, *ends).sign for ends in ((1, 2), (-2, -1), (-1, 1), (0, 1))] == [1, -1, 0, 0]


@pytest.mark.parametrize(("prompts", "level"), [(0, 0.95), (5, 0.0), (5, 1.0)])
def test_what_is_no_bootstrap_is_refused(prompts: int, level: float) -> None:
    with pytest.raises(RewardError, match="is none"):
        Bootstrap(prompts, level=level)
