"""Resampling: log-weights become ancestors, so that each particle has N·w children on average.

Every scheme is a function ``(log_weights, n, seed) -> ancestors``, unbiased: E[children of i] = n·w_i, w = softmax of
the log-weights. They differ in how far the number of children strays from n·w_i:

    scheme        children of i                          variance of an estimate
    multinomial   any number                             the largest
    residual      at least floor(n·w_i)                  never above multinomial
    stratified    less than 2 away from n·w_i            never above multinomial
    systematic    floor or ceiling of n·w_i              depends on the order of the particles
    ssp           floor or ceiling of n·w_i              never above residual; independent children in the limit

Ancestors come in ascending order. Weights stay logarithms until they are normalised, so none overflows.

References:
    Douc, Cappé and Moulines, "Comparison of resampling schemes for particle filtering", 2005 (arXiv cs/0507025).
    Gerber, Chopin and Whiteley, "Negative association, ordering and convergence of resampling methods", 2019
    (arXiv 1707.01845): SSP.
    Chopin and Papaspiliopoulos, "An Introduction to Sequential Monte Carlo", 2020, chapter 9.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

from bon_search.errors import SearchError
from pipelines.noise import derive

__references__ = ("arXiv:cs/0507025", "arXiv:1707.01845")

Resampler: TypeAlias = Callable[[Tensor, int, int], Tensor]
"""(log_weights (N,), n, seed) -> ancestors (n,), integers in [0, N), ascending, on the CPU."""


def ess(log_weights: Tensor) -> Tensor:
    """Effective sample size 1 / Σ w² of N log-weights, between 1 and N; shape ()."""
    logs = normalised(log_weights)
    return (-torch.logsumexp(2 * logs, dim=0)).exp()


def normalised(log_weights: Tensor) -> Tensor:
    """Logarithms of weights that sum to 1, (N,) float64 on the CPU.

    Args:
        log_weights: (N,) up to a common constant; -inf is a weight of zero.

    Raises:
        SearchError: NaN or +inf among them, no particle, or no weight above zero.
    """
    logs = log_weights.detach().to("cpu", torch.float64)
    if logs.ndim != 1 or len(logs) == 0:
        raise SearchError(f"Log-weights are a non-empty vector (N,), but these have the shape {tuple(logs.shape)}.")
    broken = (logs.isnan() | (logs == math.inf)).nonzero().flatten().tolist()
    if broken:
        raise SearchError(
            f"The log-weight of particle {broken[0]} is {logs[broken[0]].item()} ({len(broken)} of {len(logs)} are NaN "
            "or infinite); look for a score that is not finite."
        )
    highest = logs.max()
    if highest == -math.inf:
        raise SearchError(f"All {len(logs)} particles have the weight zero; at least one must be possible.")
    logs = logs - highest  # first, since the sum would be lost in the rounding of a large constant
    return logs - torch.logsumexp(logs, dim=0)


def multinomial(log_weights: Tensor, n: int, seed: int) -> Tensor:
    """N independent draws; shown for comparison, since every other scheme has a lower variance."""
    return _invert(normalised(log_weights).exp(), _uniforms(seed, n).sort().values)


def residual(log_weights: Tensor, n: int, seed: int) -> Tensor:
    """floor(n·w) children for sure, the rest by independent draws in proportion to what is left."""
    sure, left = _split(log_weights, n)
    missing = n - int(sure.sum())
    if missing:
        sure = sure + torch.bincount(_invert(left, _uniforms(seed, missing)), minlength=len(sure))
    return _ancestors(sure)


def stratified(log_weights: Tensor, n: int, seed: int) -> Tensor:
    """One independent draw in each of n equal strata of the cumulated weights."""
    return _invert(normalised(log_weights).exp(), (torch.arange(n, dtype=torch.float64) + _uniforms(seed, n)) / n)


def systematic(log_weights: Tensor, n: int, seed: int) -> Tensor:
    """A comb of n equal teeth over the cumulated weights, placed by a single draw."""
    return _invert(normalised(log_weights).exp(), (torch.arange(n, dtype=torch.float64) + _uniforms(seed, 1)) / n)


def ssp(log_weights: Tensor, n: int, seed: int) -> Tensor:
    """floor(n·w) children for sure; then fractions meet in pairs until each is 0 or 1 (Srinivasan's sampling process).

    Of two fractions a and b that meet, either the sum is below 1, and one takes it all, or one becomes 1 and the other
    keeps a + b − 1. The chances are such that neither changes on average.
    """
    sure, left = _split(log_weights, n)
    counts, shares = sure.tolist(), left.tolist()
    open_one = 0  # the one particle met so far whose fraction is still between 0 and 1
    for other, uniform in enumerate(_uniforms(seed, len(shares) - 1).tolist(), start=1):
        a, b = shares[open_one], shares[other]
        if a + b < 1:
            first_wins = uniform * (a + b) < a
            open_one, shares[open_one if first_wins else other] = (open_one if first_wins else other), a + b
        else:
            first_wins = uniform * (2 - a - b) < 1 - b
            winner, rest = (open_one, other) if first_wins else (other, open_one)
            counts[winner] += 1
            open_one, shares[rest] = rest, a + b - 1
    counts[open_one] += round(shares[open_one])  # 0 or 1 but for rounding, since all fractions sum to an integer
    return _ancestors(torch.tensor(counts))


def single(log_weights: Tensor, n: int, seed: int) -> Tensor:
    """One draw, which is the ancestor of all: what SVDD does with the children of one particle."""
    return _invert(normalised(log_weights).exp(), _uniforms(seed, 1)).expand(n).clone()


RESAMPLERS: Mapping[str, Resampler] = MappingProxyType(
    {
        "multinomial": multinomial,
        "residual": residual,
        "stratified": stratified,
        "systematic": systematic,
        "ssp": ssp,
        "single": single,
    }
)


def _uniforms(seed: int, n: int) -> Tensor:
    """N uniforms in [0, 1), float64, a function of the seed."""
    generator = torch.Generator("cpu").manual_seed(derive("resampling", seed))
    return torch.rand(n, generator=generator, dtype=torch.float64)


def _invert(weights: Tensor, points: Tensor) -> Tensor:
    """For each point in [0, 1) the first particle whose cumulated weight exceeds it; a weight of zero never wins."""
    heights = weights.cumsum(dim=0)
    heights = heights / heights[-1]  # rounding must not leave a gap at the top
    return torch.searchsorted(heights, points.clamp(max=1 - 2.0**-53), right=True)


def _split(log_weights: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """n·w as whole numbers (N,) int64 and fractions (N,) in [0, 1).

    A value within rounding of a whole number counts as that number, else equal weights would not all stay.
    """
    wanted = n * normalised(log_weights).exp()
    near = wanted.round()
    wanted = torch.where((wanted - near).abs() < 1e-12 * n, near, wanted)
    sure = wanted.floor()
    return sure.long(), wanted - sure


def _ancestors(counts: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(counts)), counts)
