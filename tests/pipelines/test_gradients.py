"""Gradients from pictures to latents: against finite differences, in bounded memory, with the weights left alone."""

import gc
import weakref
from typing import Any

import pytest
import torch
from cases import FAMILIES, Case, PipeOf, sampler_of
from torch import Tensor, nn

from pipelines.diffusers_sampler import DiffusersSampler
from pipelines.errors import PipelineError
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.particles import Particles
from pipelines.sampler import Sampler
from pipelines.transition import Eta

STEPS = 3
CASES = [*FAMILIES, Case("sd", "UniPCMultistepScheduler"), Case("sdxl", "DPMSolverMultistepScheduler")]


def pictures(sampler: Sampler, latents: Tensor) -> Tensor:
    streams = tuple(range(len(latents)))
    return sampler.decode(sampler.advance(Particles(latents, 0, streams), to=sampler.steps))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_finite_differences(case: Case, pipe_of: PipeOf) -> None:
    """Along the gradient itself, and so against its length; with a stochastic step in the middle."""
    pipe = case.pipe(pipe_of(case.family))
    plain = sampler_of(pipe, case, steps=STEPS, size=(32, 32), eta=Eta(0.5, 1, 2))
    noise = plain.init([5, 1]).latents.requires_grad_()
    images = pictures(plain.with_grad(), noise)
    torch.testing.assert_close(images.detach(), pictures(plain, noise.detach()), rtol=0, atol=1e-6)
    weights = torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(images: Tensor) -> Tensor:
        return (weights * images).sum()

    (gradient,) = torch.autograd.grad(loss(images), noise)
    length = gradient.norm()
    assert (gradient[0] - gradient[1]).norm() > 0.1 * length
    reach = 1e-4 if case.family == "wan" else 3e-3  # Wan's tiny random decoder is sharply curved
    shift = reach * gradient / length
    up, down = (float(loss(pictures(plain, noise.detach() + sign * shift))) for sign in (1, -1))
    assert (up - down) / (2 * reach) == pytest.approx(float(length), rel=0.02)


def test_previews_and_parts_of_a_run_have_gradients_too(pipe_of: PipeOf) -> None:
    """Two halves are the whole, solver memory included, and a preview depends on the noise as well."""
    case = Case("sd", "UniPCMultistepScheduler")
    sampler = sampler_of(case.pipe(pipe_of("sd")), case, steps=4, size=(32, 32)).with_grad()
    noise = sampler.init([3]).latents.requires_grad_()
    half = sampler.advance(Particles(noise, 0, (3,)), to=2)
    whole = sampler.advance(Particles(noise, 0, (3,)), to=4)
    (split,) = torch.autograd.grad(sampler.advance(half, to=4).latents.square().sum(), noise, retain_graph=True)
    (once,) = torch.autograd.grad(whole.latents.square().sum(), noise)
    assert torch.equal(split, once)
    (preview,) = torch.autograd.grad(sampler.decode(half).sum(), noise)
    assert preview.abs().max() > 0
    back = sampler.renoise(sampler.advance(Particles(noise, 0, (3,)), to=2), to=1, seed=0)
    assert back.latents.requires_grad


def test_a_step_keeps_no_activations_and_the_weights_no_gradients(pipe_of: PipeOf) -> None:
    pipe = pipe_of("sd")
    assert all(parameter.requires_grad for parameter in pipe.unet.parameters())
    sampler = sampler_of(pipe, Case("sd"), steps=STEPS, size=(32, 32)).with_grad()
    noise = sampler.init([0]).latents.requires_grad_()
    alive: list[Any] = []
    hooks = [
        part.register_forward_hook(lambda module, args, output: alive.append(weakref.ref(output)))
        for network in (pipe.unet, pipe.vae)
        for part in network.modules()
        if isinstance(part, nn.Conv2d)
    ]
    images = pictures(sampler, noise)
    gc.collect()
    assert len(alive) > 30
    assert not [one for one in alive if one() is not None]
    spent, told = sampler.nfe, len(alive)
    images.sum().backward()
    for hook in hooks:
        hook.remove()
    assert len(alive) == 2 * told  # everything computed once more, and counted once
    assert sampler.nfe == spent == STEPS
    assert noise.grad is not None
    for module in (pipe.unet, pipe.vae, pipe.text_encoder):
        assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())


def test_progress_is_told_once(pipe_of: PipeOf) -> None:
    sampler = sampler_of(pipe_of("sd"), Case("sd"), steps=STEPS, size=(32, 32)).with_grad()
    told: list[int] = []
    sampler.on_nfe = told.append
    pictures(sampler, sampler.init([0, 1]).latents.requires_grad_()).sum().backward()
    assert told == [2] * STEPS


def test_without_asking_and_under_no_grad_there_is_no_graph(pipe_of: PipeOf) -> None:
    sampler = sampler_of(pipe_of("flux"), Case("flux"), steps=2, size=(32, 32))
    noise = sampler.init([0]).latents.requires_grad_()
    assert not pictures(sampler, noise).requires_grad
    with torch.no_grad():
        assert not pictures(sampler.with_grad(), noise).requires_grad
    assert pictures(sampler.with_grad(), noise).requires_grad


@pytest.mark.parametrize("family", ["sd", "sana"])
def test_batch_invariance_holds_with_gradients(family: str, pipe_of: PipeOf) -> None:
    sampler = sampler_of(pipe_of(family), Case(family), steps=2, size=(32, 32), batch_invariant=True, eta=1.0)
    noise = sampler.init([0, 1, 2]).latents
    images = pictures(sampler.with_grad(), noise.clone().requires_grad_())
    assert torch.equal(images[:1], pictures(sampler.with_grad(), noise[:1].clone().requires_grad_()))


def test_gradients_help_to_find_a_noise(pipe_of: PipeOf) -> None:
    """Ten steps of plain gradient ascent on the noise raise the mean of the picture's red channel."""
    sampler = sampler_of(pipe_of("sdxl"), Case("sdxl"), steps=2, size=(32, 32)).with_grad()
    noise = sampler.init([0]).latents
    values = []
    for _ in range(10):
        noise.requires_grad_()
        value = pictures(sampler, noise)[:, 0].mean()
        (gradient,) = torch.autograd.grad(value, noise)
        noise = (noise + gradient / gradient.norm()).detach()
        values.append(float(value.detach()))
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.005


def test_a_pipeline_that_cuts_the_gradient_is_refused(pipe_of: PipeOf) -> None:
    import copy

    class Detached(type(pipe_of("sd"))):  # type: ignore[misc]
        @torch.no_grad()
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            with torch.no_grad():
                return super().__call__(*args, **kwargs)

    pipe = copy.copy(pipe_of("sd"))
    pipe.__class__ = Detached
    with pytest.raises(PipelineError, match="no option"):  # its call does not say what it takes
        DiffusersSampler(pipe, steps=2, prompt="a red circle", height=32)
    sampler = DiffusersSampler(pipe, steps=2, prompt="a red circle").with_grad()
    noise = sampler.init([0]).latents.requires_grad_()
    with pytest.raises(PipelineError, match="Detached cuts the gradient between latents and pictures"):
        sampler.advance(Particles(noise, 0, (0,)), to=2)


def test_a_watermark_is_named_as_the_obstacle(pipe_of: PipeOf) -> None:
    import copy

    class Watermark:
        def apply_watermark(self, images: Tensor) -> Tensor:  # as invisible-watermark does, in numpy
            return torch.from_numpy(images.cpu().numpy())

    pipe = copy.copy(pipe_of("sdxl"))
    vars(pipe)["watermark"] = Watermark()
    sampler = sampler_of(pipe, Case("sdxl"), steps=1, size=(32, 32))
    noise = sampler.init([0]).latents.requires_grad_()
    assert pictures(sampler, noise).isfinite().all()
    with pytest.raises(PipelineError, match=r"Pipeline turns pictures .* watermark .*\(add_watermarker=False"):
        pictures(sampler.with_grad(), noise)


def test_gradients_of_the_gaussian_sampler_from_points_to_noise() -> None:
    """Through stochastic steps and through decode, whose pictures are points on a scale."""
    sampler = GaussianMixtureSampler([[-1.0, 0.5], [1.0, 0.0]], [0.4, 0.8], [0.5, 0.5], 5, eta=0.8).with_grad()
    noise = sampler.init([0, 1]).latents

    def end(latents: Tensor) -> Tensor:
        return sampler.advance(Particles(latents, 0, (0, 1)), to=5).latents

    assert torch.autograd.gradcheck(end, noise.clone().requires_grad_())
    noise.requires_grad_()
    (shown,) = torch.autograd.grad(pictures(sampler, noise)[:, 0].sum(), noise)
    (direct,) = torch.autograd.grad(end(noise).sum() / (2 * sampler.extent), noise)
    torch.testing.assert_close(shown, direct, rtol=1e-5, atol=1e-7)
