"""Potentials: the scores a particle had at its looks become its log-weight; and the evidence that is left over.

The target of steering is p(x)·exp(λ·r(x)) / Z, with strength λ = 1 / temperature. Between start and end a particle
carries the product of all potentials G so far. A potential here is the *logarithm of that product* as a function of
the scores r_1 … r_k of the k looks so far and of their strengths λ_1 … λ_k:

    difference   λ_k·r_k                        G = exp(λ_k·r_k − λ_{k−1}·r_{k−1})
    maximum      λ_k·max(r_1 … r_k)
    sum          λ_k·(r_1 + … + r_k) / k
    current      (λ_1·r_1 + … + λ_k·r_k) / L    L looks are planned; G = exp(λ_k·r_k / L)

On a finished particle it is λ·r(x) for all of them: the final correction. A look multiplies a weight by the product
now over the product before, so whatever was looked at, the whole telescopes to exp(λ·r(x)), and the weighted
population stands for the same target. Potentials differ in whom they favour on the way, hence in variance.

Singhal et al. multiply G = exp(λ·max), exp(λ·Σr), exp(λ·r) in full at every look and divide by all of it at the end.
That is the same law too, but the pressure grows with every look to a multiple of the target's, and after many looks the
last division leaves few particles that count. The forms above never press harder than the target.

References:
    Singhal et al., "A General Framework for Inference-time Scaling and Steering of Diffusion Models", 2025
    (arXiv 2501.06848): the four potentials.
    Kim, Kim and Park, "Test-time Alignment of Diffusion Models without Reward Over-optimization", 2025
    (arXiv 2501.05803): strengths that rise with the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

from bon_search import resampling
from bon_search.errors import SearchError

__references__ = ("arXiv:2501.06848", "arXiv:2501.05803")

Potential: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]
"""(scores (k, N), strengths (k,), looks planned) -> logarithm of the product of potentials, (N,)."""

Tempering: TypeAlias = Callable[[float, float, Callable[[float], float], float], float]
"""(progress in (0, 1], share so far, ESS if the share were …, ESS wanted) -> share of the full strength, in [0, 1]."""


def difference(scores: Tensor, strengths: Tensor, planned: int) -> Tensor:
    """The current estimate, whatever the earlier ones were."""
    return strengths[-1] * scores[-1]


def maximum(scores: Tensor, strengths: Tensor, planned: int) -> Tensor:
    """The best estimate so far."""
    return strengths[-1] * scores.max(dim=0).values


def average(scores: Tensor, strengths: Tensor, planned: int) -> Tensor:
    """The mean of the estimates so far: the papers' sum, at the strength of one look."""
    return strengths[-1] * scores.mean(dim=0)


def current(scores: Tensor, strengths: Tensor, planned: int) -> Tensor:
    """Each look adds its share of its own estimate, so that the pressure builds up evenly."""
    return (strengths[:, None] * scores).sum(dim=0) / planned


POTENTIALS: Mapping[str, Potential] = MappingProxyType(
    {"difference": difference, "maximum": maximum, "sum": average, "current": current}
)


def constant(progress: float, share: float, ess_at: Callable[[float], float], wanted: float) -> float:
    """Full strength from the first look on."""
    return 1.0


def increasing(progress: float, share: float, ess_at: Callable[[float], float], wanted: float) -> float:
    """DAS: min(1.008^(100·progress) − 1, 1), which is full strength at 87 % of the steps."""
    return min(math.expm1(100 * progress * math.log(1.008)), 1.0)


def adaptive(progress: float, share: float, ess_at: Callable[[float], float], wanted: float) -> float:
    """As strong as the population bears: bisection for the share at which the ESS falls to what is wanted.

    The result lies just beyond that point, so that resampling, which restores the ESS, takes place. The strengths
    depend on the particles, so the evidence is consistent rather than unbiased.
    """
    if ess_at(1.0) >= wanted:
        return 1.0
    low, high = share, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if ess_at(middle) >= wanted else (low, middle)
    return high


TEMPERINGS: Mapping[str, Tempering] = MappingProxyType(
    {"constant": constant, "increasing": increasing, "adaptive": adaptive}
)


@dataclass(frozen=True, eq=False)
class Weights:
    """Log-weights since the last resampling, and the evidence gathered before it; a new object for each change.

    Attributes:
        logs: (N,) float64, the logarithm of each particle's weight.
        gathered: log of the product of the mean weights at all resamplings so far.
        count: the number of particles that the weights are a mean over.
    """

    logs: Tensor
    gathered: float
    count: int

    @classmethod
    def equal(cls, n: int) -> Weights:
        """Particles that weigh the same, nothing gathered."""
        return cls(torch.zeros(n, dtype=torch.float64), 0.0, n)

    @property
    def ess(self) -> float:
        """Effective sample size, between 1 and N."""
        return float(resampling.ess(self.logs))

    @property
    def log_evidence(self) -> float:
        """Logarithm of an unbiased estimate of the normalising constant of what the weights stand for."""
        return self.gathered + float(torch.logsumexp(self.logs, dim=0)) - math.log(self.count)

    def times(self, log_factors: Tensor) -> Weights:
        """Multiply each weight by exp(log_factors), (N,)."""
        return replace(self, logs=self.logs + log_factors)

    def resampled(self) -> Weights:
        """After a resampling all weigh the same, and the mean weight joins what is gathered."""
        return Weights(torch.zeros_like(self.logs), self.log_evidence, self.count)

    def merged(self, groups: Collection[Sequence[int]]) -> Weights:
        """One particle for each group of particles, with the sum of their weights; the evidence stays."""
        sums = [torch.logsumexp(self.logs[list(members)], dim=0) for members in groups]
        return replace(self, logs=torch.stack(sums))


@dataclass(frozen=True)
class Scale:
    """The strength of the tilt: a temperature, or a number of the reward's deviations.

    Attributes:
        temperature: In units of the score, positive; None: deviation / strength.
        strength: In units of 1 / deviation, at least 0.
        deviation: In units of the score, positive; None: to be measured.

    Raises:
        SearchError: A value out of its range.
    """

    temperature: float | None = None
    strength: float = 3.0
    deviation: float | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "deviation"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, str) or not value > 0):
                raise SearchError(f"The {name} is {value}; it must be a positive number, in units of the score.")
        if isinstance(self.strength, str) or not 0 <= self.strength < math.inf:
            raise SearchError(f"The strength is {self.strength}; it must be a number of at least 0, usually 1 to 5.")

    def full(self, scores: Tensor) -> float | None:
        """What a score is multiplied by in the target; None if that must be measured and these scores do not differ.

        Args:
            scores: (N,) of the look at hand.
        """
        if self.temperature is not None:
            return 1 / self.temperature
        if self.deviation is not None:
            return self.strength / self.deviation
        spread = float(scores.std()) if len(scores) > 1 else 0.0
        rounding = 1e-6 * float(scores.abs().max())  # scores come as float32
        return self.strength / spread if spread > rounding else None
