"""DNO on Gaussians: the optimum is reached through the noise of the steps, and the noise stays plausible."""

import math

import torch

from bon_search.gaussianity import CHUNK, concentration
from bon_search.searches.dno import dno
from bon_search.searches.reno import reno
from pipelines.noise import step_noise
from tests.bon_search.search_contract import STEPS, Recording, found, gains, near, outward

D = 4


def ddpm() -> Recording:
    """N(0, I) with all fresh noise: its first step forgets the noise of the start altogether."""
    return Recording([[0.0] * D], [1.0], [1.0], STEPS, eta=1.0)


def test_concentration_by_hand() -> None:
    """All ones: m = 100 chunks with M₁² = k = 4 and M₂ = 3, in any order: 2·log 2 − m·M₁²/2k − m·(2 − 1 − 0.2)²/2."""
    assert CHUNK == 4
    ones = torch.ones(400, dtype=torch.float64)
    assert math.isclose(float(concentration(ones, 0)), 2 * math.log(2) - 82, rel_tol=1e-9)
    zeros = float(concentration(0 * ones, 0))  # M₂ = 1
    assert math.isclose(zeros, math.log(2) - 50 * (math.sqrt(2) - 1.2) ** 2, rel_tol=1e-9)


def test_true_noise_is_left_alone() -> None:
    """log p₁ and log p₂ are 0 for at least the median noise; on average over noises at most a fraction of a nat."""
    drawn = torch.stack([concentration(step_noise([seed], 0, (1024,))[0], seed) for seed in range(20)])
    assert float(drawn.median()) > -0.1
    assert float(drawn.mean()) > -0.3


def test_the_optimum_is_reached_through_the_noise_of_the_steps() -> None:
    """reno, which moves the noise of the start alone, cannot move this end at all."""
    reached = found(dno(ddpm(), near(1.5), n=80, plausibility=0.0, learning_rate=0.2))
    stuck = found(reno(ddpm(), near(1.5), n=20))
    assert reached > -1e-2
    assert stuck < -0.5


def test_the_noise_stays_plausible_where_the_reward_alone_would_leave_it() -> None:
    """After an ascent of a linear reward, with the regulariser and without; the reward itself loses little."""
    ends = {}
    for plausibility in (0.0, 1.0):
        sampler = Recording([[0.0] * 64], [1.0], [1.0], STEPS)
        *_, last = dno(sampler, outward, n=60, plausibility=plausibility, learning_rate=0.1, strength=5.0)
        noise = sampler.moves[-1][0].latents[0]
        ends[plausibility] = (float(concentration(noise, 1)), float(last.scores))
    assert ends[0.0][0] < -60
    assert ends[1.0][0] > ends[0.0][0] / 3
    assert ends[1.0][1] > 2.5


def test_more_than_best_of_n_at_equal_nfe() -> None:
    """In deviations of the reward, on average over runs."""
    gained = gains(dno, outward, 256, n=16, runs=4)
    assert gained.min() > 0
    assert gained.mean() > 4
