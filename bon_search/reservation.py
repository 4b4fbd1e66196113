"""Pandora's rule in stages: what each candidate is worth looking into further.

A candidate's reservation value is the score z at which going on with it, ending it whenever that is better, would just
pay: E[(final − z)⁺ − price · steps] = 0. It is best to go on with the candidate of the highest reservation value, or to
start a new one, and to stop when none exceeds the best finished score. The price is the same for all prompts, so that
effort goes where it adds most.

On the scale w of a `Forecast` the value of a candidate with the sum b of its j known parts is b + m + s·ζ_j(price / s),
where m and s are the mean and the deviation of the parts to come, and ζ_j comes from dynamic programming on a grid.
Means and scales are the prompt's, as far as the parts seen so far tell (posterior means), and the doubt that is left
about m widens s, so that a little known prompt is explored.

References:
    Weitzman, "Optimal search for the best alternative", 1979.
    Dumitriu, Tetali and Winkler, "On playing golf with two balls", 2003: boxes that open in stages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bon_search.forecast import log_scale_error

if TYPE_CHECKING:
    from torch import Tensor

    from bon_search.forecast import Forecast

DOUBT = 4.0  # what the variance of a prompt's mean counts for, beside that of a candidate
REACH, CELLS, NODES = 5.0, 250, 21  # of the grid for z in deviations; of the quadrature
PRICES = torch.linspace(math.log(1e-5), math.log(0.5), 37, dtype=torch.float64)  # logs of prices in deviations


@dataclass(frozen=True, eq=False)
class Tally:
    """What is known of E prompts: of each part, how many candidates showed it, their sum and sum of squares.

    Attributes:
        count: (E, J).
        total: (E, J).
        squares: (E, J).
    """

    count: Tensor
    total: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, prompts: int, parts: int) -> Tally:
        """Nothing seen yet."""
        return cls(*(torch.zeros(prompts, parts, dtype=torch.float64) for _ in range(3)))

    def __getitem__(self, index: Tensor) -> Tally:
        """Some of the prompts."""
        return Tally(self.count[index], self.total[index], self.squares[index])

    def add(self, stage: Tensor, parts: Tensor, valid: Tensor) -> Tally:
        """After B more parts of each prompt: (E,) which one, (E, B) their values and whether each counts."""
        here = torch.nn.functional.one_hot(stage, self.count.shape[1]).double()  # (E, J)
        values = parts.where(valid, torch.zeros_like(parts))
        sums = valid.double(), values, values.square()
        count, total, squares = (here * each.sum(dim=1, keepdim=True) for each in sums)
        return Tally(self.count + count, self.total + total, self.squares + squares)


class Reservations:
    """Reservation values under one forecast, price and number of steps.

    Args:
        forecast: Of the model and reward.
        steps: K.
        price: In deviations of the reward for each denoiser step.
    """

    def __init__(self, forecast: Forecast, steps: int, price: float) -> None:
        places = torch.tensor([0, *forecast.places(steps)], dtype=torch.float64)
        self.forecast = forecast
        self.costs = places.diff() + forecast.look_cost  # (J,) of each stage, in denoiser steps
        self._price = price * forecast.deviation
        self._mean_precision = torch.linalg.inv(forecast.mean_covariance)
        self._scale_precision = torch.linalg.inv(forecast.log_scale_covariance)
        typical = forecast.log_scales.exp()
        self._rest = _tail(typical.square()).sqrt()  # (J,) deviation of the parts from j on
        self._zeta = zeta(typical / self._rest[0], self.costs) * self._rest[0] / self._rest  # (G, J)

    def offsets(self, tally: Tally, best: Tensor) -> Tensor:
        """(E, J + 1): the reservation value of a candidate with j known parts, less their sum; a finished one has −∞.

        Args:
            tally: Of E prompts.
            best: (E,) highest finished score on the scale w, or −∞.
        """
        means, doubt, scales = self._prompts(tally)
        rest = _tail(means)  # (E, J)
        deviation = (_tail(scales.square()) + DOUBT * doubt).sqrt()  # (E, J)
        near = torch.maximum(best, rest[:, 0] + deviation[:, 0])  # where scores matter
        price = math.log(self._price) + near  # log on the scale w, where a score of ceiling − e^−w changes by e^−w dw
        values = rest + deviation * self._looked_up(price[:, None] + (self._rest / deviation / self._rest[0]).log())
        return torch.cat([values, torch.full_like(best, -math.inf)[:, None]], dim=1)

    def _prompts(self, tally: Tally) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior means of m (E, J), variances of its tails (E, J), and scales s (E, J)."""
        scales = self._scales(tally)
        weight = tally.count / scales.square()
        covariance = torch.linalg.inv(self._mean_precision + weight.diag_embed())  # (E, J, J)
        towards = self._mean_precision @ self.forecast.means + tally.total / scales.square()
        means = (covariance @ towards[..., None])[..., 0]
        doubt = covariance.flip(1, 2).cumsum(1).cumsum(2).diagonal(dim1=1, dim2=2).flip(1)
        return means, doubt, scales

    def _scales(self, tally: Tally) -> Tensor:
        """(E, J) the posterior mean of log s, as s."""
        count = tally.count.clamp(min=2)
        spread = (tally.squares - tally.total.square() / count).clamp(min=1e-24)
        bias, noise = log_scale_error(count)
        weight = (tally.count > 1) / noise
        seen = (spread / (count - 1)).log() / 2 - bias
        towards = self._scale_precision @ self.forecast.log_scales + weight * seen
        precision = self._scale_precision + weight.diag_embed()
        logs: Tensor = torch.linalg.solve(precision, towards[..., None])[..., 0]
        return logs.exp()

    def _looked_up(self, logs: Tensor) -> Tensor:
        """ζ (E, J) at log prices (E, J), between the points of the grid."""
        place = ((logs - PRICES[0]) / (PRICES[1] - PRICES[0])).clamp(0, len(PRICES) - 1.000001)
        cell = place.long()
        stage = torch.arange(logs.shape[1])
        return self._zeta[cell, stage].lerp(self._zeta[cell + 1, stage], place - cell)


def zeta(scales: Tensor, costs: Tensor) -> Tensor:
    """Reservation values (G, J) of a candidate of mean 0 that has stages j, … J before it, at the prices `PRICES`.

    Args:
        scales: (J,) deviations of the parts, whose squares add up to 1.
        costs: (J,) of the stages.
    """
    z = torch.linspace(-REACH, REACH, CELLS + 1, dtype=torch.float64)
    nodes = torch.special.ndtri((torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES)
    nodes = nodes / nodes.square().mean().sqrt()
    prices = PRICES.exp()[:, None]  # (G, 1)
    worth = (-z).clamp(min=0).expand(len(PRICES), -1)  # (G, Z) what a finished one adds, by z less its score
    columns = []
    for scale, cost in zip(scales.flip(0), costs.flip(0), strict=True):
        then = z[:, None] - scale * nodes  # (Z, NODES)
        place = ((then + REACH) * CELLS / (2 * REACH)).clamp(0, CELLS - 1e-6)
        cell = place.long()
        after = worth[:, cell].lerp(worth[:, cell + 1], (place - cell).expand(len(PRICES), -1, -1))
        gain = (after + (-REACH - then).clamp(min=0)).mean(dim=-1) - prices * cost  # (G, Z), falling in z
        columns.append(_root(z, gain))
        worth = gain.clamp(min=0)
    return torch.stack(columns[::-1], dim=1)


def _root(z: Tensor, gain: Tensor) -> Tensor:
    """(G,) where falling functions (G, Z) cross zero; an end of the grid where they do not."""
    last = ((gain > 0).sum(dim=1) - 1).clamp(0, len(z) - 2)[:, None]
    high, low = gain.gather(1, last), gain.gather(1, last + 1)
    share = (high / (high - low).clamp(min=1e-300)).clamp(0, 1)
    return (z[last] + share * (z[last + 1] - z[last]))[:, 0]


def _tail(values: Tensor) -> Tensor:
    """Sums of (…, J) from j on."""
    return values.flip(-1).cumsum(-1).flip(-1)
