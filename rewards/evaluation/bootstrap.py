"""How certain a number is that was measured on P prompts: the bootstrap over prompts.

A statistic here is a function of *shares*: how much each of P prompts counts, (R, P) rows that sum to 1, one row for
each resample, giving (R,) numbers. Uniform shares give the estimate, multinomial ones its spread, leave-one-out ones
its skewness. All statistics of one `Bootstrap` see the same resamples, so differences between them are paired.

Intervals are BCa (bias-corrected and accelerated), with the normal quantile z replaced by √(P / (P − 1))·t of P − 1
degrees of freedom, since a bootstrap of few prompts is too narrow otherwise. What they cover is a test
(`tests/rewards/evaluation/test_bootstrap.py`).

References:
    Efron, "Better Bootstrap Confidence Intervals", 1987: BCa.
    Hesterberg, "What Teachers Should Know About the Bootstrap", 2015: the widening for small samples.
    Fisher and Cornish, "The Percentile Points of Distributions Having Known Cumulants", 1960: t by an expansion.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rewards.errors import RewardError

Floats: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[Floats], Floats]
"""Shares (R, P) -> values (R,); infinite where the statistic has none."""

RESAMPLES = 4000
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """An estimate and where it may lie.

    Attributes:
        value: The estimate.
        low: Lower end; NaN if there are too few prompts to tell.
        high: Upper end; likewise.
    """

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 if the whole interval lies above zero, −1 if below, 0 if it does not tell."""
        return int(self.low > 0) - int(self.high < 0)


class Bootstrap:
    """Resamples of P prompts, the same for every statistic.

    Args:
        prompts: P.
        level: Coverage of the intervals, in (0, 1).
        resamples: R.
        seed: Of the resamples.

    Raises:
        RewardError: No prompts, or a level that is none.
    """

    def __init__(self, prompts: int, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> None:
        if prompts < 1 or not 0 < level < 1:
            raise RewardError(f"A bootstrap of {prompts} prompts at level {level} is none; give at least 1, and 0.95.")
        self.prompts = prompts
        counts = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
        self._shares: Floats = counts / prompts  # (R, P)
        self._uniform: Floats = np.full((1, prompts), 1 / prompts)
        self._left_out: Floats = (1 - np.eye(prompts)) / max(1, prompts - 1)  # (P, P)
        self._quantile = _quantile(level, prompts)

    def mean(self, values: Floats) -> Interval:
        """The mean of (P,) values, one a prompt."""
        return self.interval(lambda shares: shares @ values)

    def interval(self, statistic: Statistic) -> Interval:
        """The estimate of any statistic, with its BCa interval."""
        value = float(statistic(self._uniform)[0])
        if self.prompts < 2:
            return Interval(value, math.nan, math.nan)
        drawn = np.sort(statistic(self._shares))  # (R,)
        tolerance = 1e-12 * (1 + abs(value)) if math.isfinite(value) else 0.0
        below = (drawn < value - tolerance).mean() + (drawn <= value + tolerance).mean()
        least = 1 / len(drawn)
        bias = _NORMAL.inv_cdf(float(np.clip(below / 2, least, 1 - least)))
        acceleration = _acceleration(statistic(self._left_out))
        ends = (_adjusted(bias, acceleration, z) for z in (-self._quantile, self._quantile))
        low, high = (float(np.quantile(drawn, end, method="inverted_cdf")) for end in ends)
        return Interval(value, low, high)


def _quantile(level: float, prompts: int) -> float:
    """√(P / (P − 1))·t at (1 + level) / 2 with P − 1 degrees of freedom, t by three terms of Fisher and Cornish."""
    if prompts < 2:
        return math.nan
    z, freedom = _NORMAL.inv_cdf((1 + level) / 2), prompts - 1
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return t * math.sqrt(prompts / freedom)


def _acceleration(left_out: Floats) -> float:
    """Skewness of the jackknife (P,) over 6; 0 where it has none."""
    if not np.isfinite(left_out).all():
        return 0.0
    away = left_out.mean() - left_out
    spread = float((away**2).sum()) ** 1.5
    return float((away**3).sum()) / (6 * spread) if spread > 0 else 0.0


def _adjusted(bias: float, acceleration: float, z: float) -> float:
    """The BCa probability that stands for the normal quantile z."""
    shifted = bias + z
    return _NORMAL.cdf(bias + shifted / max(1e-6, 1 - acceleration * shifted))
