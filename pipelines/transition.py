"""The one Gaussian transition kernel between noise levels.

A state x = alpha·x0 + sigma·eps moves to the level (alpha', sigma') by

    x' = alpha'·x0 + sigma'·(rho·eps + sqrt(1 − rho²)·noise),   rho in [0, 1].

Whatever rho is, x' has the noise level sigma' exactly, at any number of steps. rho = 1 is the ODE (Euler, DDIM) step,
rho = 0 redraws all noise, and DDIM's eta and every flow SDE lie between. The variance-preserving case is equation 12 of
Song, Meng and Ermon (2021), "Denoising diffusion implicit models", arXiv 2010.02502.

With rho_D = alpha·sigma' / (alpha'·sigma), which is sigma'/sigma if variance explodes, and the flow time
t = sigma / (alpha + sigma), which is sigma itself on a flow, the kinds of `Eta` are

    kind         rho                        equal to
    ddim         sqrt(1 − η²·(1 − rho_D²))  DDIM with η; at η = 1 DDPM, Euler ancestral, first-order SDE-DPM-Solver++
    cps          cos(η·π/2)                 coefficients-preserving sampling; at η = 1 `stochastic_sampling` and LCM
    flow-grpo    rho_D^(η²/2)               the SDE with g = η·sqrt(t/(1−t)), solved exactly; DDPM at η = sqrt(2)
    rbf          exp(−η²·(t³ − t'³)/6)      the SDE with g = η·t², solved exactly

CPS is of Wang and Yu (2025, arXiv 2509.05952). The last two integrate the SDE of Flow-GRPO (Liu et al., 2025, arXiv
2505.05470) and the diffusion coefficient of RBF (Kim et al., 2025, arXiv 2503.19385) with x0 frozen within the step:
with y = x − alpha·x0 = t·u, u follows an Ornstein-Uhlenbeck process, so rho = exp(−½·∫ g²/t² dt). Euler steps of these
SDEs end with noise left over; these do not. At pure noise, where g of Flow-GRPO is infinite, its rho is 0: the first
step of a flow redraws all noise, whatever η.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from pipelines.errors import PipelineError

Kind: TypeAlias = Literal["ddim", "cps", "flow-grpo", "rbf"]


class Level(NamedTuple):
    """A noise level: x = alpha·x0 + sigma·eps; both are () tensors, sigma > 0 except at the clean end."""

    alpha: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class Eta:
    """How much fresh noise the steps start..stop-1 draw; all other steps are the solver's own.

    Attributes:
        value: η >= 0, and at most 1 for "ddim" and "cps"; 0 draws none.
        start: the first stochastic step.
        stop: one past the last one; None for the end of the run.
        kind: which rho; see the table of `pipelines.transition`.

    Raises:
        PipelineError: a value, window or kind out of range.
    """

    value: float
    start: int = 0
    stop: int | None = None
    kind: Kind = "ddim"

    def __post_init__(self) -> None:
        if self.kind not in RHO:
            raise PipelineError(
                f"There is no stochastic step of the kind {self.kind!r}; choose one of {', '.join(RHO)}."
            )
        limit = 1.0 if self.kind in BOUNDED else math.inf
        if not 0 <= self.value <= limit or self.value == math.inf:
            allowed = "between 0 (deterministic) and 1" if limit == 1 else "a finite number from 0 (deterministic) up"
            raise PipelineError(f"The eta of {self.kind} must be {allowed}, but is {self.value}.")
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise PipelineError(f"Stochastic steps need 0 <= start < stop, but got [{self.start}, {self.stop}).")

    @classmethod
    def of(cls, eta: float | Eta, steps: int) -> Eta:
        """The eta of a run of `steps` steps; a plain number is DDIM's, for the whole run.

        Raises:
            PipelineError: out of range, or a window that does not fit into the run.
        """
        if not isinstance(eta, Eta | Real):
            raise PipelineError(f"`eta` must be a number or an `Eta`, but is {eta!r}.")
        made = eta if isinstance(eta, Eta) else cls(float(eta))
        if max(made.start + 1, made.stop or 0) > steps:
            raise PipelineError(
                f"The stochastic steps [{made.start}, {made.stop}) do not fit into a run of {steps} steps."
            )
        return made

    def acts(self, step: int) -> bool:
        """Whether the step from position `step` draws fresh noise."""
        return self.value > 0 and self.start <= step and (self.stop is None or step < self.stop)

    def rho(self, now: Level, then: Level) -> Tensor:
        """How much of the old noise a stochastic step keeps; shape (), in [0, 1]."""
        return RHO[self.kind](self.value, now, then)

    def scale(self, now: Level, then: Level) -> Tensor:
        """The standard deviation sigma'·sqrt(1 − rho²) of the noise that a stochastic step adds; shape ()."""
        return then.sigma * (1 - self.rho(now, then).square()).sqrt()


def rho_ddim(eta: float, now: Level, then: Level) -> Tensor:
    """rho² = 1 − eta²·(1 − rho_D²); shape ()."""
    return (1 - eta**2 * (1 - _ddpm(now, then).square())).sqrt()


def rho_cps(eta: float, now: Level, then: Level) -> Tensor:
    """cos(eta·π/2), whatever the levels; shape ()."""
    return torch.full_like(now.sigma, math.cos(eta * math.pi / 2))


def rho_flow_grpo(eta: float, now: Level, then: Level) -> Tensor:
    """rho_D^(eta²/2); shape ()."""
    return _ddpm(now, then) ** (eta**2 / 2)


def rho_rbf(eta: float, now: Level, then: Level) -> Tensor:
    """exp(−eta²·(t³ − t'³)/6) in flow time; shape ()."""
    before, after = (level.sigma / (level.alpha + level.sigma) for level in (now, then))
    return (-(eta**2) * (before**3 - after**3) / 6).exp()


def _ddpm(now: Level, then: Level) -> Tensor:
    """rho_D, the share of old noise that DDPM keeps: 0 from pure noise or to clean, 1 if the level stays."""
    return (now.alpha * then.sigma / (then.alpha * now.sigma)).clamp(max=1)


RHO: Mapping[str, Callable[[float, Level, Level], Tensor]] = {
    "ddim": rho_ddim,
    "cps": rho_cps,
    "flow-grpo": rho_flow_grpo,
    "rbf": rho_rbf,
}
BOUNDED = ("ddim", "cps")


def transition(latents: Tensor, x0: Tensor, noise: Tensor, *, now: Level, then: Level, rho: Tensor) -> Tensor:
    """Move latents (N, ...) with clean estimates x0 (N, ...) from one noise level to another.

    Args:
        latents: (N, ...) at level `now`, whose sigma is positive.
        x0: (N, ...) clean estimates; taken as known within the step.
        noise: (N, ...) standard normal; without effect if rho is 1.
        now: the level of the latents.
        then: the level to reach.
        rho: () in [0, 1], how much of the old noise is kept.

    Returns:
        (N, ...) at level `then`.
    """
    eps = (latents - now.alpha * x0) / now.sigma
    return then.alpha * x0 + then.sigma * (rho * eps + (1 - rho.square()).sqrt() * noise)


def forward(latents: Tensor, noise: Tensor, *, now: Level, then: Level) -> Tensor:
    """Diffuse latents (N, ...) forward to a noisier level, such that a marginal law stays a marginal law.

    x' = (alpha'/alpha)·x + sqrt(sigma'² − (alpha'·sigma/alpha)²)·noise; alpha must be positive.
    """
    kept = then.alpha / now.alpha
    return kept * latents + (then.sigma.square() - (kept * now.sigma).square()).clamp(min=0).sqrt() * noise


def cosine_levels(steps: int, *, dtype: torch.dtype = torch.float64) -> tuple[Level, ...]:
    """alpha_k = sin(πk/2K), sigma_k = cos(πk/2K) for k = 0..K: from pure noise (0, 1) to clean (1, 0); K + 1 levels."""
    angle = torch.linspace(0, torch.pi / 2, steps + 1, dtype=torch.float64)
    alphas, sigmas = angle.sin(), angle.cos()
    sigmas[-1] = 0
    return tuple(Level(alpha.to(dtype), sigma.to(dtype)) for alpha, sigma in zip(alphas, sigmas, strict=True))
