"""ReNO on Gaussians: the regularised optimum in closed form, the length of a move, and what it gains."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from bon_search.gaussianity import shell
from bon_search.searches.reno import MOMENTUM, reno
from pipelines.particles import Particles
from tests.bon_search.search_contract import STEPS, clean, finished, gains, near, normal, outward

D = 16
END = math.cos(math.pi / 2 / STEPS) ** STEPS  # the end state is this multiple of the noise


def test_the_shell_is_the_density_of_the_length() -> None:
    """Against the chi distribution: half the square of the length is Gamma(d/2)."""
    lengths = torch.tensor([1.0, 3.0, 7.0], dtype=torch.float64)
    direction = torch.nn.functional.normalize(torch.ones(D, dtype=torch.float64), dim=0)
    ours = torch.stack([shell(length * direction) for length in lengths])
    gamma = torch.distributions.Gamma(torch.tensor(D / 2, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    theirs = gamma.log_prob(lengths.square() / 2) + lengths.log()
    torch.testing.assert_close(ours - ours[0], theirs - theirs[0])


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_ascent_ends_at_the_regularised_optimum(temperature: float) -> None:
    """Of a linear reward b·(u·z): along u, where b = |z| − (d − 1)/|z|; without the regulariser there is none."""
    *_, last = reno(normal(D), outward, n=150, temperature=temperature)
    noise = last.particles.latents[0] / END
    b = END / temperature
    length = (b + math.sqrt(b**2 + 4 * (D - 1))) / 2
    torch.testing.assert_close(noise, torch.full((D,), length / D**0.5, dtype=torch.float64), rtol=2e-3, atol=0)


def test_no_move_is_longer_than_asked_for() -> None:
    """The first is as long as a clipped gradient with the head start of Nesterov's momentum, and no later one beyond
    what momentum adds up to."""
    looks = list(reno(normal(D), outward, n=20, start=2, step_size=0.03, temperature=1e-3))
    top = int(looks[0].scores.argmax())
    path = [looks[0].particles.latents[top], *(look.particles.latents[0] for look in looks[1:])]
    moves = [float((b - a).norm()) / END for a, b in itertools.pairwise(path)]
    longest = 0.03 * D**0.5
    assert moves[0] == pytest.approx((1 + MOMENTUM) * longest, rel=1e-6)
    assert max(moves) <= longest / (1 - MOMENTUM) * (1 + 1e-6)


def test_the_best_iterate_is_among_the_candidates_though_the_ascent_goes_on() -> None:
    """A reward with a peak that large moves jump over: later iterates are worse, and all are given out."""

    def peaked(particles: Particles) -> Tensor:
        return -(outward(particles) - 1.5).abs()

    looks = finished(reno(normal(D), peaked, n=20, step_size=0.3, seed=3))
    scores = torch.cat([look.scores for look in looks])
    assert len(scores) == 20
    assert scores.max() > scores[-1]
    assert all(not look.particles.latents.requires_grad and not look.scores.requires_grad for look in looks)


@pytest.mark.parametrize(("dimension", "least"), [(16, 1.5), (256, 5.0)])
def test_more_than_best_of_n_at_equal_nfe(dimension: int, least: float) -> None:
    """In deviations of the reward, on average over runs; best-of-16 itself is 1.77 of them."""
    gained = gains(reno, outward, dimension, n=16, runs=4)
    assert gained.min() > 0
    assert gained.mean() > least


def test_noise_of_steps_is_held() -> None:
    """On a stochastic sampler an iterate with the noise of its predecessor is its predecessor."""
    sampler = type(normal(2))([[0.0, 0.0], [2.0, 1.0]], [1.0, 0.5], [0.5, 0.5], STEPS, eta=0.5)

    def flat(particles: Particles) -> Tensor:
        return 0 * clean(particles).sum(dim=1) + near(1.0)(particles).detach()

    looks = list(reno(sampler, flat, n=12, start=2, step_size=1e-9, temperature=1.0))
    ends = torch.cat([look.particles.latents for look in looks[1:]])
    top = looks[0].particles.latents[int(looks[0].scores.argmax())]
    assert float((ends - top).abs().max()) < 1e-6
