"""Curves of quality over cost: between their points, and where they reach a quality.

How certain a comparison is, `rewards.evaluation.bootstrap` tells.
"""

from __future__ import annotations

import math

import numpy as np

from rewards.evaluation.bootstrap import Floats


def interpolated(costs: Floats, qualities: Floats, cost: float) -> Floats | None:
    """Qualities (P,) at a cost between two of a curve's: (P, C) at costs (C,), straight over log cost.

    None where the curve does not reach: nothing is extrapolated.
    """
    order = np.argsort(costs)
    costs, qualities = costs[order], qualities[:, order]
    if not costs[0] <= cost <= costs[-1]:
        return None
    right = int(np.searchsorted(costs, cost))
    if right == 0:
        return qualities[:, 0]
    share = (math.log(cost) - math.log(costs[right - 1])) / (math.log(costs[right]) - math.log(costs[right - 1]))
    mixed: Floats = (1 - share) * qualities[:, right - 1] + share * qualities[:, right]
    return mixed


def cost_to_reach(costs: Floats, qualities: Floats, target: Floats) -> Floats:
    """The cost (R,) at which curves first reach a target: straight over log cost between their points.

    Args:
        costs: (R, C) mean costs of the C budgets, ascending.
        qualities: (R, C) mean qualities there.
        target: (R,).

    Returns:
        Infinity where a curve never reaches it; the least cost measured where its first point does.
    """
    reached = np.where(qualities[:, 0] >= target, costs[:, 0], math.inf)
    for k in range(1, costs.shape[1]):
        rise = qualities[:, k] - qualities[:, k - 1]
        share = np.clip((target - qualities[:, k - 1]) / np.where(rise > 0, rise, 1.0), 0, 1)
        there = np.exp((1 - share) * np.log(costs[:, k - 1]) + share * np.log(costs[:, k]))
        reached = np.where(np.isinf(reached) & (qualities[:, k] >= target), there, reached)
    return reached
