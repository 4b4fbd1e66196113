"""The noise levels of a run, read off a diffusers scheduler: latents at step k are alpha_k·x0 + sigma_k·noise.

Three conventions cover the schedulers that can be run step by step:

* variance preserving (DDIM, DDPM, LCM, TCD): alpha² + sigma² = 1, tabulated in `alphas_cumprod`;
* sigmas (Euler and its kin): alpha = 1; the DPM-Solver family translates them by a method of its own;
* flow matching: alpha = 1 - sigma.

A table is accepted only if the scheduler's own `add_noise` or `scale_noise` agrees with it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import PipelineError, UnsupportedScheduler
from pipelines.transition import Level, forward

CURE = (
    "Use one with a single model call per step, for example EulerDiscreteScheduler or DPMSolverMultistepScheduler, "
    "or FlowMatchEulerDiscreteScheduler for a flow model."
)
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """Signal and noise levels of the positions k = 0..K of a run.

    Attributes:
        alpha: (K+1,) float64, the factor of the clean latents.
        sigma: (K+1,) float64, the factor of the standard normal noise; (1, 0) at k = K if the run ends clean.
        prediction: what the network gives: "epsilon", "v_prediction", "sample" or "flow_prediction".
    """

    alpha: Tensor
    sigma: Tensor
    prediction: str

    def level(self, step: int) -> Level:
        """The noise level of position 0..K."""
        return Level(self.alpha[step], self.sigma[step])

    def x0(self, latents: Tensor, output: Tensor, step: int) -> Tensor:
        """The clean latents that the network's output implies for the latents at a step; shape of the latents.

        Args:
            latents: (N, ...) at position `step`.
            output: (N, ...) what the network gave there.
            step: 0..K-1.
        """
        alpha, sigma = float(self.alpha[step]), float(self.sigma[step])
        x, out = latents.float(), output.float()
        match self.prediction:
            case "epsilon":
                clean = (x - sigma * out) / alpha
            case "v_prediction":
                clean = alpha * x - sigma * out
            case "flow_prediction":
                clean = x - sigma * out
            case _:
                clean = out
        return clean.to(latents.dtype)

    def diffuse(self, latents: Tensor, noise: Tensor, start: int, to: int) -> Tensor:
        """The forward kernel q(x_to | x_start) from one position to an earlier, noisier one.

        Args:
            latents: (N, ...) at position `start`.
            noise: (N, ...) standard normal.
            start: 1..K.
            to: 0..start-1.
        """
        noise = noise.to(latents.device, torch.float32)
        moved = forward(latents.float(), noise, now=self.level(start), then=self.level(to))
        return moved.to(latents.dtype)


def read_schedule(scheduler: Any) -> NoiseSchedule:  # noqa: ANN401 - diffusers has no types
    """The noise levels of a scheduler whose timesteps have been set.

    Raises:
        UnsupportedScheduler: the convention is not one of ours, or the scheduler's own noising disagrees.
    """
    alpha, sigma, flow = _levels(scheduler)
    if len(alpha) != len(scheduler.timesteps) + 1:
        raise UnsupportedScheduler(
            f"{_name(scheduler)} has {len(alpha)} noise levels for {len(scheduler.timesteps)} timesteps, "
            f"one more than timesteps was expected. {CURE}"
        )
    prediction = scheduler.config.get("prediction_type", "flow_prediction" if flow else "epsilon")
    if prediction not in PREDICTIONS:
        raise UnsupportedScheduler(
            f"{_name(scheduler)} is set to prediction_type {prediction!r}; expected one of {', '.join(PREDICTIONS)}."
        )
    schedule = NoiseSchedule(alpha.double().cpu(), sigma.double().cpu(), prediction)
    for step in (0, len(alpha) // 2):
        _check(scheduler, schedule, min(step, len(alpha) - 2))
    return schedule


def _levels(scheduler: Any) -> tuple[Tensor, Tensor, bool]:  # noqa: ANN401
    """The table, alpha (K+1,) and sigma (K+1,), and whether this is flow matching."""
    sigmas = getattr(scheduler, "sigmas", None)
    if isinstance(sigmas, Tensor) and len(sigmas) > len(scheduler.timesteps):
        sigmas = sigmas.double()
        if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
            alpha, sigma = scheduler._sigma_to_alpha_sigma_t(sigmas)
            return torch.as_tensor(alpha, dtype=torch.float64).expand_as(sigma), sigma, False
        if hasattr(scheduler, "scale_noise") and not scheduler.config.get("invert_sigmas"):
            return 1 - sigmas, sigmas, True
        if hasattr(scheduler, "add_noise"):
            return torch.ones_like(sigmas), sigmas, False
    if hasattr(scheduler, "alphas_cumprod") and hasattr(scheduler, "add_noise"):
        signal = scheduler.alphas_cumprod.double()[scheduler.timesteps.long().cpu()]
        signal = torch.cat([signal, torch.as_tensor(_final(scheduler), dtype=torch.float64).reshape(1)])
        return signal.sqrt(), (1 - signal).sqrt(), False
    raise UnsupportedScheduler(f"The noise levels of {_name(scheduler)} cannot be read. {CURE}")


def _final(scheduler: Any) -> float | Tensor:  # noqa: ANN401
    """The signal power alpha² that the last step of a variance preserving scheduler leads to."""
    final: float | Tensor = getattr(scheduler, "final_alpha_cumprod", 1.0)
    return final


def _check(scheduler: Any, schedule: NoiseSchedule, step: int) -> None:  # noqa: ANN401
    """Compare one row of the table with what the scheduler does to a signal and a noise of one."""
    noising = getattr(scheduler, "scale_noise", None) or scheduler.add_noise
    flow = hasattr(scheduler, "scale_noise")
    timestep = scheduler.timesteps[step : step + 1]
    one, zero = torch.ones(1, 1, device=timestep.device), torch.zeros(1, 1, device=timestep.device)

    def ask(signal: Tensor, noise: Tensor) -> float:
        return float(noising(signal, timestep, noise) if flow else noising(signal, noise, timestep))

    got = (ask(one, zero), ask(zero, one))
    same = [k for k, other in enumerate(scheduler.timesteps.tolist()) if other == timestep.item()]
    rows = [(float(schedule.alpha[k]), float(schedule.sigma[k])) for k in same]
    if not any(_close(row, got) for row in rows):
        raise UnsupportedScheduler(
            f"{_name(scheduler)} noises with (alpha, sigma) = {got} at step {step}, where its attributes say "
            f"{rows[0]}; its convention is not known here. {CURE}"
        )


def _close(row: tuple[float, float], got: tuple[float, float]) -> bool:
    return all(abs(a - b) <= 1e-4 * max(1.0, abs(a)) for a, b in zip(row, got, strict=True))


def _name(scheduler: object) -> str:
    return type(scheduler).__name__


def check_steps(scheduler: Any, steps: int, timesteps: Tensor) -> None:  # noqa: ANN401
    """Refuse a scheduler that needs several model calls per step, or that changed the number of steps.

    Raises:
        UnsupportedScheduler: with the cure.
    """
    if len(timesteps) != steps:
        raise UnsupportedScheduler(
            f"{_name(scheduler)} turns {steps} steps into {len(timesteps)} model calls, so that a run cannot be "
            f"split between steps. {CURE}"
        )
    if getattr(scheduler, "order", 1) != 1:
        raise UnsupportedScheduler(
            f"{_name(scheduler)} calls the model {scheduler.order} times per step, so that a run cannot be split "
            f"between steps. {CURE}"
        )


def check_position(name: str, value: int, low: int, high: int) -> None:
    """Raise a PipelineError unless low <= value <= high."""
    if not low <= value <= high:
        raise PipelineError(f"`{name}` must be from {low} to {high} here, but is {value}.")
