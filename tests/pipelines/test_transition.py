"""The transition kernel and its kinds: against quadrature, the steps of diffusers, and a denoiser that knows all."""

import itertools
import math
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from pipelines.errors import PipelineError
from pipelines.noise import step_noise
from pipelines.transition import Eta, Kind, Level, cosine_levels, transition
from pipelines.window import windowed

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
STREAMS = (7, 8)
MANY = 64 * 64
Z = 5.0
"""Standard errors that a Monte-Carlo figure may be off: by chance once in 1.7 million."""


def level(alpha: float, sigma: float) -> Level:
    return Level(torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))


def flow(time: float) -> Level:
    return level(1 - time, time)


def begun(name: str, config: dict[str, Any], eta: Eta, *, steps: int) -> Any:
    """A windowed scheduler at the start of a run of two particles."""
    scheduler = windowed(getattr(diffusers, name)(**config), 0, steps, steps=steps, streams=STREAMS, eta=eta)
    scheduler.set_timesteps(steps)
    return scheduler


def run(scheduler: Any, model: Any, options: dict[str, Any] | None = None) -> list[Tensor]:
    """The states 0..K of two particles; `options` are those of the scheduler's own step."""
    schedule = scheduler.window.schedule
    start = schedule.level(0)
    x = start.alpha * torch.full((2, 1, 64, 64), TRUTH) + start.sigma * step_noise(STREAMS, -1, (1, 64, 64))
    states = [x]
    for k, timestep in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, timestep)
        output = model(x, schedule.level(k), schedule.prediction)
        x = scheduler.step(output, timestep, x, return_dict=False, **options or {})[0]
        states.append(x)
    return states


TRUTH = 0.7


def knows(x: Tensor, now: Level, prediction: str) -> Tensor:
    """The output of a network for data that are all TRUTH: whatever it predicts, x0 comes out as TRUTH."""
    noise = (x - now.alpha * TRUTH) / now.sigma
    if prediction == "v_prediction":
        return now.alpha * noise - now.sigma * TRUTH
    return noise - TRUTH if prediction == "flow_prediction" else noise


def guesses(x: Tensor, now: Level, prediction: str) -> Tensor:
    """The output of no network in particular: bounded, smooth, and different everywhere."""
    return 0.5 * (x / (now.alpha**2 + now.sigma**2).sqrt()).tanh() + 0.1 * now.sigma


SCHEDULERS: list[tuple[str, dict[str, Any]]] = [
    ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    ("DDIMScheduler", {"clip_sample": False, **ZERO_SNR}),
    ("EulerDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    ("UniPCMultistepScheduler", FLOW),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
]
ETAS = [Eta(0.5), Eta(1.0), Eta(0.6, kind="cps"), Eta(0.7, kind="flow-grpo"), Eta(3.0, kind="rbf")]


@pytest.mark.parametrize("steps", [5, 10, 50])
@pytest.mark.parametrize(("name", "config"), SCHEDULERS, ids=str)
def test_each_state_has_the_noise_level_of_the_schedule_and_the_last_none(
    name: str, config: dict[str, Any], steps: int
) -> None:
    """With a denoiser that knows the truth, x_k = alpha_k·truth + sigma_k·e_k with standard normal e_k, whatever K.

    And e_k keeps prod(rho) of the noise at the start. An Euler step of the same SDE would end with a spread of 0.08.
    """
    eta = ETAS[(steps + len(name)) % len(ETAS)]
    scheduler = begun(name, config, eta, steps=steps)
    states = run(scheduler, knows)
    levels = [scheduler.window.schedule.level(k) for k in range(steps + 1)]
    start, kept, count = step_noise(STREAMS, -1, (1, 64, 64)), 1.0, 2 * MANY
    for k in range(1, steps + 1):
        kept *= float(eta.rho(levels[k - 1], levels[k]))
        noise = states[k] - levels[k].alpha * TRUTH
        sigma = float(levels[k].sigma)
        if sigma == 0:
            assert k == steps
            assert noise.abs().max() < 1e-5
            return
        assert float(noise.square().mean()) / sigma**2 == pytest.approx(1, abs=Z * math.sqrt(2 / count) + 1e-4)
        error = math.sqrt((1 + kept**2) / count)
        assert float((noise / sigma * start).mean()) == pytest.approx(kept, abs=Z * error + 1e-4)
    assert sigma < 0.06


@pytest.mark.parametrize(
    ("name", "config", "eta", "options"),
    [
        ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, Eta(0.7), {"eta": 0.7}),
        ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"}, Eta(1.0), {"eta": 1.0}),
        ("DDIMScheduler", {"clip_sample": False, "prediction_type": "v_prediction"}, Eta(0.3), {"eta": 0.3}),
        ("DDPMScheduler", {"clip_sample": False}, Eta(1.0), {}),
        ("DDPMScheduler", {"clip_sample": True}, Eta(1.0), {}),
        ("EulerAncestralDiscreteScheduler", {}, Eta(1.0), {}),
        ("EulerAncestralDiscreteScheduler", {"prediction_type": "v_prediction"}, Eta(1.0), {}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 1}, Eta(1.0), {}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 1, **FLOW}, Eta(1.0), {}),
        ("LCMScheduler", {}, Eta(1.0, stop=4, kind="cps"), {}),
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True, "shift": 3.0}, Eta(1.0, kind="cps"), {}),
    ],
    ids=str,
)
def test_the_stochastic_steps_of_diffusers_are_special_cases(
    name: str, config: dict[str, Any], eta: Eta, options: dict[str, Any]
) -> None:
    """The scheduler's own stochastic run and the kernel's, with the same noise; float32, so to its rounding.

    In 5 steps, which divide 1000: else DDIM rounds the timesteps that it steps to apart from those that it steps from.
    """
    stock = run(begun(name, config, Eta(0.0), steps=5), guesses, options)
    kernel = run(begun(name, config, eta, steps=5), guesses)
    for own, ours in zip(stock, kernel, strict=True):
        torch.testing.assert_close(ours, own, rtol=1e-4, atol=2e-4)
    assert (stock[3][0] - stock[3][1]).abs().max() > 0.1


def test_edm_networks_have_the_same_estimate_whatever_the_solver() -> None:
    """EDMEuler offers its x0, EDMDPMSolver does not; the first steps of both start from the same level."""
    sample, output = torch.randn(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    estimates = []
    for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"):
        scheduler = begun(name, {}, Eta(0.5), steps=5)
        scheduler.scale_model_input(sample, scheduler.timesteps[0])
        scheduler.step(output, scheduler.timesteps[0], sample)
        estimates.append(scheduler.window.x0)
    torch.testing.assert_close(*estimates)


@pytest.mark.parametrize(("kind", "power"), [("flow-grpo", None), ("rbf", 2)])
def test_flow_sdes_are_solved_exactly(kind: Kind, power: int | None) -> None:
    """rho = exp(−½·∫ g²/t² dt), by quadrature, for g = a·sqrt(t/(1−t)) and g = a·t²."""
    a, before, after = 1.3, 0.8, 0.35
    t = torch.linspace(after, before, 100_001, dtype=torch.float64)
    squared = a**2 * (t / (1 - t) if power is None else t ** (2 * power))
    expected = torch.exp(-torch.trapezoid(squared / t**2, t) / 2)
    torch.testing.assert_close(Eta(a, kind=kind).rho(flow(before), flow(after)), expected)
    scaled = [level(3 * (1 - time), 3 * time) for time in (before, after)]  # another path with the same levels
    torch.testing.assert_close(Eta(a, kind=kind).rho(*scaled), expected)


def test_the_kernel_and_flow_grpos_euler_step_agree_to_first_order_and_differ_in_the_level() -> None:
    """The published step: x·(1 + s²dt/2t) + v·(1 + s²(1−t)/2t)·dt + s·sqrt(|dt|)·noise, s = a·sqrt(t/(1−t))."""
    x, x0 = torch.randn(2, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    t, a, gaps = 0.6, 0.7, []
    for dt in (-0.02, -0.01):
        s2 = a**2 * t / (1 - t)
        v = (x - x0) / t
        euler = x * (1 + s2 * dt / (2 * t)) + v * (1 + s2 * (1 - t) / (2 * t)) * dt  # its mean
        rho = Eta(a, kind="flow-grpo").rho(flow(t), flow(t + dt))
        ours = transition(x, x0, torch.zeros_like(x), now=flow(t), then=flow(t + dt), rho=rho)
        gaps.append(float((ours - euler).abs().max()))
        drawn = (t + dt) * math.sqrt(1 - float(rho) ** 2)
        assert drawn == pytest.approx(math.sqrt(s2 * -dt), rel=5 * -dt)
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.1)  # second order in dt
    assert Eta(math.sqrt(2), kind="flow-grpo").rho(flow(0.9), flow(0.8)) == pytest.approx(0.8 * 0.1 / (0.9 * 0.2))


def test_all_kinds_run_from_keeping_all_noise_to_fresh_noise() -> None:
    levels = cosine_levels(7)
    for kind in ("ddim", "cps", "flow-grpo", "rbf"):
        kept = [
            [float(Eta(value, kind=kind).rho(*pair)) for pair in itertools.pairwise(levels)] for value in (0, 0.3, 0.9)
        ]
        assert kept[0] == [1.0] * 7
        assert all(0 <= more <= less < 1 for less, more in zip(kept[1], kept[2], strict=True))
    assert all(float(Eta(1.0).rho(now, then)) == 0 for now, then in [levels[:2], levels[-2:]])  # from noise; to clean
    assert float(Eta(1.0, kind="cps").rho(levels[3], levels[4])) == pytest.approx(0, abs=1e-15)


def test_a_window_of_stochastic_steps() -> None:
    assert [Eta(0.5, 2, 4).acts(step) for step in range(6)] == [False, False, True, True, False, False]
    assert [Eta(0.5, 4).acts(step) for step in range(6)] == [False] * 4 + [True] * 2
    assert not any(Eta(0.0).acts(step) for step in range(6))
    assert Eta.of(0.3, 6) == Eta(0.3)
    assert Eta.of(Eta(0.3, 2, 6), 6) == Eta(0.3, 2, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": 1.5}, "eta of ddim must be between 0 .* and 1, but is 1.5"),
        ({"value": -0.1, "kind": "rbf"}, "eta of rbf must be a finite number from 0 .* but is -0.1"),
        ({"value": math.nan, "kind": "cps"}, "eta of cps must be between .* but is nan"),
        ({"value": 0.5, "start": 3, "stop": 3}, r"0 <= start < stop, but got \[3, 3\)"),
        ({"value": 0.5, "kind": "ddpm"}, "of the kind 'ddpm'; choose one of ddim, cps, flow-grpo, rbf"),
    ],
)
def test_etas_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        Eta(**options)


def test_windows_that_do_not_fit_the_run_are_refused() -> None:
    for eta in (Eta(0.5, 2, 7), Eta(0.5, 6)):
        with pytest.raises(PipelineError, match="do not fit into a run of 6 steps"):
            Eta.of(eta, 6)
    with pytest.raises(PipelineError, match=r"must be a number or an `Eta`, but is '0\.7'"):
        Eta.of("0.7", 6)  # type: ignore[arg-type]
