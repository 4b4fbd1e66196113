"""What the package promises, on numbers that are known."""

import math

import pytest
import torch
from bon_search_example.antithetic import antithetic, cost
from bon_search_example.contrast import Contrast

from bon_search.critic import PictureCritic
from bon_search.ledger import Ledger, MeteredSampler
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.particles import Particles
from rewards.testing import check_reward

STEPS = 4


def normal() -> GaussianMixtureSampler:
    """N(0, 1); its candidates are the initial noise times cos(π/2K)^K."""
    return GaussianMixtureSampler([[0.0]], [1.0], [1.0], steps=STEPS)


def coordinate(particles: Particles) -> torch.Tensor:
    return particles.latents[:, 0].float()


def test_the_reward_keeps_the_contract() -> None:
    check_reward(Contrast(), differentiable=True)


def test_the_contrast_of_a_chessboard_is_one_half_and_of_a_flat_picture_none() -> None:
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2  # half of the pixels 0, half of them 1
    images = torch.stack([board.expand(3, 8, 8).float(), torch.full((3, 8, 8), 0.3)])
    assert Contrast()(images, ["", ""]).tolist() == pytest.approx([0.5, 0], abs=1e-5)


def test_the_better_of_a_pair_is_the_absolute_value_of_a_normal() -> None:
    """Its mean is sqrt(2/π) = 0.798, where two independent candidates reach 1/sqrt(π) = 0.564."""
    pairs = 4000
    (look,) = antithetic(normal(), coordinate, n=2 * pairs)
    better = look.scores.reshape(pairs, 2).max(dim=1).values / math.cos(math.pi / 2 / STEPS) ** STEPS
    assert better.mean().item() == pytest.approx(math.sqrt(2 / math.pi), abs=4 * 0.603 / math.sqrt(pairs))


@pytest.mark.parametrize(("n", "batch"), [(1, None), (5, 2), (6, 4), (7, 1)])
def test_batches_neither_lose_nor_change_a_candidate(n: int, batch: int | None) -> None:
    looks = list(antithetic(normal(), coordinate, n=n, seed=3, batch_size=batch))
    (whole,) = antithetic(normal(), coordinate, n=n, seed=3)
    assert torch.cat([look.scores for look in looks]).equal(whole.scores)
    assert len({stream for look in looks for stream in look.particles.streams}) == n
    torch.testing.assert_close(whole.scores[1::2], -whole.scores[: n - 1 : 2])


def test_it_spends_what_its_formula_says() -> None:
    ledger = Ledger()
    sampler = MeteredSampler(normal(), ledger)
    list(antithetic(sampler, PictureCritic(sampler, Contrast(), "", ledger), n=5))
    spent, told = ledger.spent, cost(5, STEPS)
    assert (spent.nfe, spent.rewards, spent.decodes) == (told.nfe, told.rewards, told.decodes) == (20, 5, 5)
