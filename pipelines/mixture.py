"""Gaussian mixtures with isotropic components, and their tilts in closed form.

The tilt of a law p by a reward r(x) = a·x − (c/2)·|x|² is p(x)·exp(r(x)) / Z, what every steering method aims at. For a
mixture of N(mu_m, s_m²·I) with weights w_m it is a mixture again (complete the square): with g_m = 1 / (1 + c·s_m²),

    mean_m = g_m·(mu_m + s_m²·a),   variance_m = g_m·s_m²,   weight_m ∝ w_m·Z_m,
    log Z_m = (D/2)·log g_m + g_m·(a·mu_m + s_m²·|a|²/2 − c·|mu_m|²/2),   Z = Σ w_m·Z_m.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A law on R^D: Σ_m weights_m·N(means_m, scales_m²·I); leading dimensions are a batch of laws.

    Attributes:
        means: (..., M, D).
        scales: (..., M) standard deviations, positive.
        log_weights: (..., M) logarithms of weights that sum to 1.
    """

    means: Tensor
    scales: Tensor
    log_weights: Tensor

    @property
    def mean(self) -> Tensor:
        """(..., D)."""
        return (self.log_weights.exp()[..., None] * self.means).sum(dim=-2)

    @property
    def covariance(self) -> Tensor:
        """(..., D, D): the spread within components plus the spread of their means."""
        weights = self.log_weights.exp()
        apart = self.means - self.mean[..., None, :]  # (..., M, D)
        between = torch.einsum("...m,...md,...me->...de", weights, apart, apart)
        within = (weights * self.scales.square()).sum(dim=-1)[..., None, None]
        return between + within * torch.eye(self.means.shape[-1], dtype=self.means.dtype, device=self.means.device)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density at x (..., D); shape (...)."""
        squares = (x[..., None, :] - self.means).square().sum(dim=-1)  # (..., M)
        logs = -squares / (2 * self.scales.square()) - self.means.shape[-1] * (
            self.scales.log() + 0.5 * torch.log(torch.tensor(2 * torch.pi, dtype=x.dtype))
        )
        return torch.logsumexp(self.log_weights + logs, dim=-1)

    def project(self, direction: Tensor) -> GaussianMixture:
        """The law of direction·x, a mixture on R^1; direction is (D,) and not zero."""
        return GaussianMixture((self.means @ direction)[..., None], self.scales * direction.norm(), self.log_weights)

    def cdf(self, x: Tensor) -> Tensor:
        """P(X <= x) of a mixture on R^1 at points x (N,); shape (N,). To the power n it is the cdf of the best of n."""
        below = torch.special.ndtr((x[:, None] - self.means[:, 0]) / self.scales)  # (N, M)
        total: Tensor = (self.log_weights.exp() * below).sum(dim=-1)
        return total

    def diffused(self, alpha: Tensor, sigma: Tensor) -> GaussianMixture:
        """The law of alpha·X + sigma·eps for X of this law: the marginal at that noise level."""
        scales = (alpha.square() * self.scales.square() + sigma.square()).sqrt()
        return GaussianMixture(alpha * self.means, scales, self.log_weights)

    def tilt(self, linear: Tensor, curvature: Tensor | float = 0.0) -> Tilt:
        """Tilt by exp(linear·x − curvature/2·|x|²).

        Args:
            linear: (..., D); with leading dimensions the result is a batch of laws.
            curvature: (...) or (), at least 0; a target c is linear = curvature·c.

        Returns:
            The tilted law and log Z = log E[exp(linear·X − curvature/2·|X|²)], shape (...).
        """
        curvature = torch.as_tensor(curvature, dtype=self.means.dtype, device=self.means.device)[..., None]
        variances = self.scales.square()  # (..., M)
        shrink = 1 / (1 + curvature * variances)
        means = shrink[..., None] * (self.means + variances[..., None] * linear[..., None, :])  # (..., M, D)
        exponent = (linear[..., None, :] * self.means).sum(dim=-1) + 0.5 * variances * linear.square().sum(-1)[
            ..., None
        ]
        exponent = shrink * (exponent - 0.5 * curvature * self.means.square().sum(dim=-1))
        logs = self.log_weights + 0.5 * self.means.shape[-1] * shrink.log() + exponent  # (..., M)
        evidence = torch.logsumexp(logs, dim=-1)
        return Tilt(
            GaussianMixture(means, (shrink * variances).sqrt().expand_as(logs), logs - evidence[..., None]), evidence
        )

    def posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> GaussianMixture:
        """The law of X given alpha·X + sigma·eps = x, for each row of x (N, D): a batch of N mixtures; sigma > 0."""
        return self.tilt(alpha * x / sigma.square(), (alpha / sigma).square()).law


@dataclass(frozen=True, eq=False)
class Tilt:
    """A tilted law and the logarithm of its normalising constant, the evidence (...)."""

    law: GaussianMixture
    log_evidence: Tensor
