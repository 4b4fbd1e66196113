"""Intervals for statistics of items that come in clusters: all that was asked about one prompt is drawn together.

Pairs of one prompt share pictures and difficulty, so that resampling them one by one would promise too much.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from rewards.evaluation.bootstrap import Bootstrap, Floats, Interval

Weighted: TypeAlias = Callable[[Floats], Floats]
"""Weights (R, n) of items -> values (R,), NaN where there is none."""

MOST = 2000  # clusters in a bootstrap; beyond it they are put together at random, which leaves intervals as they are
_NUMBERS = 4_000_000  # weights in memory


class Clusters:
    """n items in P clusters, and the same resamples of the clusters for every statistic.

    Args:
        groups: (n,) what each item belongs to.
        level: coverage of the intervals.
        seed: of the resamples.

    Raises:
        RewardError: there are no items.
    """

    def __init__(self, groups: Sequence[str], *, level: float = 0.95, seed: int = 0) -> None:
        names = {name: number for number, name in enumerate(dict.fromkeys(groups))}
        self.count = len(names)
        blocks = np.arange(self.count)
        if self.count > MOST:
            blocks = np.random.default_rng(seed).permutation(self.count) % MOST
        self._of_item = blocks[[names[group] for group in groups]]  # (n,)
        resamples = max(200, min(4000, _NUMBERS // max(1, len(groups))))
        self._many = Bootstrap(min(self.count, MOST), level=level, seed=seed)
        self._few = Bootstrap(min(self.count, MOST), level=level, resamples=resamples, seed=seed)

    def mean(self, values: Floats) -> Interval:
        """The mean of (n,) values."""
        return self.ratio(values, np.ones(len(values)))

    def ratio(self, numerators: Floats, denominators: Floats) -> Interval:
        """The sum of (n,) values over the sum of others; NaN where that is 0."""
        above, below = self._summed(numerators), self._summed(denominators)

        def statistic(shares: Floats) -> Floats:
            whole = shares @ below
            quotient: Floats = np.where(whole > 0, shares @ above / np.where(whole > 0, whole, 1.0), math.nan)
            return quotient

        return _interval(self._many, statistic)

    def interval(self, statistic: Weighted) -> Interval:
        """Any statistic of the items, given how much each counts."""
        return _interval(self._few, lambda shares: statistic(shares[:, self._of_item]))

    def _summed(self, values: Floats) -> Floats:
        """Sums over the clusters, (P,)."""
        sums: Floats = np.bincount(self._of_item, values, minlength=self._many.prompts).astype(np.float64)
        return sums


def _interval(bootstrap: Bootstrap, statistic: Callable[[Floats], Floats]) -> Interval:
    """The interval; a resample that has no value of its own stands for the estimate."""
    value = float(statistic(np.full((1, bootstrap.prompts), 1 / bootstrap.prompts))[0])
    if math.isnan(value):
        return Interval(value, math.nan, math.nan)

    def defined(shares: Floats) -> Floats:
        values = statistic(shares)
        known: Floats = np.where(np.isnan(values), value, values)
        return known

    return bootstrap.interval(defined)
