"""The table of noise levels against the schedulers' own noising, and the two formulas that use it."""

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from pipelines.errors import UnsupportedScheduler
from pipelines.schedule import NoiseSchedule, read_schedule

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SCHEDULERS = [
    ("DDIMScheduler", {}),
    ("DDIMScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("DDPMScheduler", {}),
    ("LCMScheduler", {}),
    ("TCDScheduler", {}),
    ("EulerDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ("EulerAncestralDiscreteScheduler", {}),
    ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}),
    ("DPMSolverMultistepScheduler", FLOW),
    ("DPMSolverSinglestepScheduler", {}),
    ("UniPCMultistepScheduler", {}),
    ("UniPCMultistepScheduler", FLOW),
    ("DEISMultistepScheduler", {}),
    ("SASolverScheduler", {}),
    ("EDMEulerScheduler", {}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ("FlowMatchLCMScheduler", {}),
]


@pytest.mark.parametrize(("name", "config"), SCHEDULERS, ids=str)
def test_the_table_is_what_the_scheduler_does(name: str, config: dict[str, object]) -> None:
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(10)
    schedule = read_schedule(scheduler)
    x0, noise = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    for k, timestep in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "scale_noise"):
            expected = scheduler.scale_noise(x0, timestep[None], noise)
        else:
            expected = scheduler.add_noise(x0, noise, timestep[None])
        got = float(schedule.alpha[k]) * x0 + float(schedule.sigma[k]) * noise
        torch.testing.assert_close(got, expected, rtol=2e-6, atol=2e-6)  # float32 tables and products
    assert len(schedule.alpha) == len(schedule.sigma) == 11
    assert schedule.sigma.diff().max() < 0
    assert schedule.sigma[-1] < 0.06


def test_x0_equals_what_the_scheduler_offers() -> None:
    latents, output = torch.randn(2, 2, 4, 3, 3, generator=torch.Generator().manual_seed(1)).unbind()
    for prediction in ("epsilon", "v_prediction", "sample"):
        scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False)
        scheduler.set_timesteps(10)
        expected = scheduler.step(output, scheduler.timesteps[4], latents).pred_original_sample
        torch.testing.assert_close(read_schedule(scheduler).x0(latents, output, 4), expected, rtol=1e-5, atol=1e-5)


def test_x0_of_flow_matching_inverts_the_interpolation() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(10)
    schedule = read_schedule(scheduler)
    x0, noise = torch.randn(2, 2, 4, 3, 3, generator=torch.Generator().manual_seed(2)).unbind()
    latents = float(schedule.alpha[6]) * x0 + float(schedule.sigma[6]) * noise
    torch.testing.assert_close(schedule.x0(latents, noise - x0, 6), x0, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler])
def test_forward_diffusion_keeps_the_marginal(kind: type) -> None:
    """From unit-variance data at level k, the forward kernel reaches exactly the variance of level `to`."""
    scheduler = kind()
    scheduler.set_timesteps(10)
    schedule = read_schedule(scheduler)
    start, to = 7, 2
    x0, old, new = torch.randn(3, 200_000, generator=torch.Generator().manual_seed(3)).unbind()
    latents = float(schedule.alpha[start]) * x0 + float(schedule.sigma[start]) * old
    moved = schedule.diffuse(latents, new, start, to)
    variance = float(schedule.alpha[to] ** 2 + schedule.sigma[to] ** 2)
    assert abs(float(moved.var()) / variance - 1) < 5 * (2 / 200_000) ** 0.5
    covariance = float((moved * x0).mean())
    assert abs(covariance - float(schedule.alpha[to])) < 5 * (variance / 200_000) ** 0.5 * 2


def test_unknown_conventions_are_refused() -> None:
    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(10)
    scheduler.add_noise = lambda x, noise, timestep: 2 * x + noise
    with pytest.raises(UnsupportedScheduler, match=r"noises with .* EulerDiscreteScheduler"):
        read_schedule(scheduler)
    scheduler = DDIMScheduler(prediction_type="score")
    scheduler.set_timesteps(10)
    with pytest.raises(UnsupportedScheduler, match="prediction_type 'score'"):
        read_schedule(scheduler)
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(10)
    with pytest.raises(UnsupportedScheduler, match="cannot be read"):
        read_schedule(scheduler)


def test_the_schedule_is_double_precision() -> None:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(5)
    schedule = read_schedule(scheduler)
    assert isinstance(schedule, NoiseSchedule)
    assert (schedule.alpha.square() + schedule.sigma.square() - 1).abs().max() < 1e-12
