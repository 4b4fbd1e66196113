"""Fresh noise on every family: seeded by particle, in its window only, and equal to the stock stochastic pictures."""

from typing import Any

import pytest
import torch
from cases import CASES, FAMILIES, FLOW, Case, PipeOf, sampler_of, stock

from pipelines.errors import PipelineError, UnsupportedScheduler
from pipelines.noise import step_noise
from pipelines.particles import Particles
from pipelines.transition import Eta

STEPS = 5
UNIPC = Case("sd", "UniPCMultistepScheduler")
SINGLESTEP = Case("sd", "DPMSolverSinglestepScheduler")
SOLVERS = [
    *FAMILIES,
    UNIPC,
    Case("sd", "EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    Case("sd", "DPMSolverMultistepScheduler", {"solver_order": 3}),
    SINGLESTEP,
    Case("sd", "DDIMScheduler", {"prediction_type": "v_prediction"}),
    Case("sd3", "UniPCMultistepScheduler", FLOW, fresh=True),
]


@pytest.mark.parametrize("case", SOLVERS, ids=str)
def test_splits_order_and_forks(case: Case, pipe_of: PipeOf) -> None:
    sampler = sampler_of(case.pipe(pipe_of(case.family)), case, steps=STEPS, size=(32, 32), eta=Eta(0.8, 1, 4))
    start = sampler.init([5, 1, 2])
    whole = sampler.advance(start, to=STEPS)
    middle = sampler.advance(sampler.advance(start, to=2), to=3)
    split = sampler.advance(middle, to=STEPS)
    assert torch.equal(split.latents, whole.latents)
    assert torch.equal(split.x0, whole.x0)
    difference = (sampler.advance(middle[[2, 0, 0]], to=STEPS).latents - whole.latents[[2, 0, 0]]).abs().max()
    assert difference <= (1e-5 if case.family in ("sana", "wan") else 0)  # see test_table.py
    first, second = sampler.advance(middle.fork([0, 0]), to=STEPS).latents
    assert (first - whole.latents[0]).abs().max() <= 1e-5
    assert (first - second).abs().max() > 0.01
    assert sampler.stochastic_steps == range(1, 4)


@pytest.mark.parametrize("case", [UNIPC, SINGLESTEP, Case("pixart"), Case("sd3")], ids=str)
def test_outside_the_window_steps_are_the_schedulers_own(case: Case, pipe_of: PipeOf) -> None:
    """Before it to the bit; after it as for particles that the solver has no history of."""
    pipe = case.pipe(pipe_of(case.family))
    plain = sampler_of(pipe, case, steps=STEPS, size=(32, 32))
    noisy = sampler_of(pipe, case, steps=STEPS, size=(32, 32), eta=Eta(1.0, 2, 3))
    start = plain.init([5, 1])
    assert torch.equal(noisy.advance(start, to=2).latents, plain.advance(start, to=2).latents)
    moved = noisy.advance(start, to=3)
    assert (moved.latents - plain.advance(start, to=3).latents).abs().max() > 0.1
    afresh = Particles(moved.latents, 3, moved.streams)
    assert torch.equal(noisy.advance(start, to=STEPS).latents, plain.advance(afresh, to=STEPS).latents)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_sampler_knows_whether_its_scheduler_draws(case: Case, pipe_of: PipeOf) -> None:
    sampler = sampler_of(case.pipe(pipe_of(case.family)), case, steps=STEPS, size=(32, 32))
    assert sampler.stochastic == case.stochastic
    start = sampler.init([0])
    if case.family in ("sd", "flux"):
        first, second = sampler.advance(start.fork([0, 0]), to=STEPS).latents
        assert torch.equal(first, second) != case.stochastic
    if case.stochastic and case.scheduler != "SASolverScheduler":  # which draws in the middle of a run only
        assert sampler.stochastic_steps == range(STEPS - 1)  # the last step is to sigma = 0


@pytest.mark.parametrize(
    ("ours", "eta", "theirs"),
    [
        (Case("sd"), Eta(0.7), Case("sd", call={"eta": 0.7})),
        (Case("sd", "EulerDiscreteScheduler"), Eta(1.0), Case("sd", "EulerAncestralDiscreteScheduler")),
        (Case("sdxl"), Eta(1.0), Case("sdxl", "EulerAncestralDiscreteScheduler")),
        (
            Case("pixart"),
            Eta(1.0),
            Case("pixart", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 1}),
        ),
        (
            Case("flux"),
            Eta(1.0, kind="cps"),
            Case("flux", "FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
        ),
        (
            Case("qwen-image"),
            Eta(1.0, kind="cps"),
            Case("qwen-image", "FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
        ),
    ],
    ids=str,
)
def test_pictures_equal_those_of_the_stock_stochastic_pipeline(
    ours: Case, eta: Eta, theirs: Case, pipe_of: PipeOf
) -> None:
    """Any solver with an eta makes what the stock pipeline makes with a stochastic scheduler and the same noise."""
    sampler = sampler_of(ours.pipe(pipe_of(ours.family)), ours, steps=STEPS, size=(32, 32), eta=eta)
    images = sampler.decode(sampler.advance(sampler.init([3, 11]), to=STEPS))
    expected = stock(theirs.pipe(pipe_of(theirs.family)), theirs, [3, 11], steps=STEPS, size=(32, 32))
    torch.testing.assert_close(images, expected, rtol=0, atol=2e-4)


def test_the_scale_of_the_fresh_noise(pipe_of: PipeOf) -> None:
    """What copies differ by after one step is the difference of their noises times the scale."""
    sampler = sampler_of(pipe_of("flux"), Case("flux"), steps=STEPS, size=(32, 32), eta=Eta(0.8, 1, 3))
    start = sampler.advance(sampler.init([0]), to=1).fork([0, 0])
    one, other = sampler.advance(start, to=2).latents
    noise = step_noise(start.streams, 1, one.shape)
    torch.testing.assert_close(one - other, sampler.noise_scale(1) * (noise[0] - noise[1]), rtol=1e-4, atol=1e-5)
    assert [sampler.noise_scale(step) > 0 for step in range(STEPS)] == [False, True, True, False, False]
    with pytest.raises(PipelineError, match="`step` must be from 0 to 4"):
        sampler.noise_scale(STEPS)
    case = Case("sd", "EulerAncestralDiscreteScheduler")
    own = sampler_of(case.pipe(pipe_of("sd")), case, steps=STEPS, size=(32, 32))
    with pytest.raises(UnsupportedScheduler, match=r"EulerAncestral.* noise of its own at step 2.* eta above 0"):
        own.noise_scale(2)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_batch_equals_single_runs(batch_size: int | None, pipe_of: PipeOf) -> None:
    def make(seeds: list[int], **options: Any) -> torch.Tensor:
        sampler = sampler_of(pipe_of("sd3"), Case("sd3"), steps=3, eta=1.0, batch_invariant=True, **options)
        return sampler.advance(sampler.init(seeds), to=3).latents

    alone = torch.cat([make([seed]) for seed in (4, 9, 2)])
    assert torch.equal(make([4, 9, 2], batch_size=batch_size), alone)


def test_renoised_particles_go_on_with_new_noise(pipe_of: PipeOf) -> None:
    sampler = sampler_of(UNIPC.pipe(pipe_of("sd")), UNIPC, steps=STEPS, size=(32, 32), eta=0.9)
    clean = sampler.advance(sampler.init([3]), to=STEPS)
    one, other = (sampler.advance(sampler.renoise(clean, to=2, seed=seed), to=STEPS).latents for seed in (0, 1))
    assert one.isfinite().all()
    assert (one - other).abs().max() > 0.1


def test_half_precision_keeps_its_dtype(pipe_of: PipeOf) -> None:
    import copy

    pipe = copy.deepcopy(pipe_of("flux")).to(torch.bfloat16)
    sampler = sampler_of(pipe, Case("flux"), steps=3, size=(32, 32), eta=1.0)
    end = sampler.advance(sampler.init([0]), to=3)
    assert end.latents.dtype == torch.bfloat16
    assert end.x0.dtype == torch.bfloat16
