"""The public contract kit passes on good samplers and fails on broken ones."""

import pytest
import torch
from cases import Case, PipeOf, sampler_of

from pipelines import batch_invariant
from pipelines.diffusers_sampler import DiffusersSampler
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.particles import EMPTY, Particles
from pipelines.testing import check_sampler


@pytest.mark.parametrize("case", [Case("sd", "UniPCMultistepScheduler"), Case("flux")], ids=str)
def test_diffusers_sampler_keeps_the_contract(case: Case, pipe_of: PipeOf) -> None:
    check_sampler(sampler_of(case.pipe(pipe_of(case.family)), case, steps=4))


def test_batch_invariant_samplers_keep_it_exactly(pipe_of: PipeOf) -> None:
    case = Case("sana")
    check_sampler(sampler_of(pipe_of("sana"), case, steps=3, batch_invariant=True))


def test_a_sampler_that_loses_the_solver_memory_is_caught(pipe_of: PipeOf) -> None:
    class Forgetful(DiffusersSampler):
        def advance(self, particles: Particles, to: int) -> Particles:
            moved = super().advance(particles, to)
            return Particles(moved.latents, moved.step, moved.streams, moved.x0, EMPTY)

    case = Case("sd", "UniPCMultistepScheduler")
    pipe = case.pipe(pipe_of("sd"))
    with pytest.raises(AssertionError, match="a split run must equal an unsplit one"):
        check_sampler(Forgetful(pipe, steps=6, prompt="a red circle", **case.options(32, 32)))


def test_a_sampler_that_is_wrong_about_its_noise_is_caught() -> None:
    class Silent(GaussianMixtureSampler):
        @property
        def stochastic_steps(self) -> range:
            return range(0)

    mixture = [[-1.0], [1.0]], [0.5, 0.5], [0.5, 0.5]
    check_sampler(GaussianMixtureSampler(*mixture, 4, eta=0.5))
    check_sampler(Silent(*mixture, 4))
    with pytest.raises(AssertionError, match="copies must part exactly if a step still to come is stochastic"):
        check_sampler(Silent(*mixture, 4, eta=0.5))


def test_a_softmax_over_the_particles_stays_one() -> None:
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    with batch_invariant(4):
        assert torch.equal(scores.softmax(dim=0), torch.softmax(scores, 0))
        inside = torch.nn.functional.softmax(scores, dim=-2)
    torch.testing.assert_close(inside.sum(dim=0), torch.ones(3))
