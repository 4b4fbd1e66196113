"""Ψ-Sampler: chains with the law of the tilted noise, and the tilt that steering from them ends with."""

from typing import Any

import pytest
import torch

from bon_search.errors import SearchError
from bon_search.guided import Look
from bon_search.searches import psi as module
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.psi import cost, psi
from tests.bon_search.normal_law import DIRECTION, deviations, end_variance, estimated, gaussian, quadratic, tilted

STEPS, SKIPPED, CHAINS, MOVES = 4, 3, 100, 30
N = 850  # at 4 NFE each pays for a first look and the moves of all chains, and for the last 3 steps of 100 particles
TEMPERATURE, CURVATURE = 0.2, 2.0


def chain_scores(move_size: float) -> torch.Tensor:
    """Scores of the chains in the second half of their moves, (chains, 2): their mean and their mean square."""
    sampler = gaussian(STEPS, SKIPPED)
    critic = quadratic(sampler, CURVATURE)
    looks = psi(
        sampler,
        critic,
        n=N,
        exploration=0.95,
        chains=CHAINS,
        moves=MOVES,
        move_size=move_size,
        temperature=TEMPERATURE,
        seed=5,
    )
    kept = [look.scores for look in looks if look.particles.step == 1][MOVES // 2 + 1 : MOVES + 1]
    scores = torch.stack(kept)
    return torch.stack([scores.mean(0), scores.square().mean(0)], dim=1)


def true_scores() -> torch.Tensor:
    """The same of a·y − c/2·|y|² where y = αz is N(0, α²·I), tilted; by a sample of two million."""
    alpha = float(gaussian(STEPS, SKIPPED).levels[0].alpha)
    law = tilted(alpha**2, CURVATURE, TEMPERATURE)
    normal = torch.randn(2_000_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = law[:2] + law[2].sqrt() * normal
    scores = points @ DIRECTION - CURVATURE / 2 * points.square().sum(dim=1)
    return torch.stack([scores.mean(), scores.square().mean()])


@pytest.mark.parametrize("move_size", [0.5, 1.0])
def test_the_chains_have_the_law_of_the_tilted_noise(move_size: float) -> None:
    """Two moments of the score, to four standard errors of some per cent."""
    found = chain_scores(move_size)
    assert deviations(found, true_scores()).abs().max() < 4
    assert (found.std(0) / CHAINS**0.5 / true_scores().abs()).max() < 0.08


def test_moves_that_are_never_refused_have_another_law(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_uniform", lambda key: 1e-300)
    assert deviations(chain_scores(1.0), true_scores()).abs().max() > 6


def test_steering_ends_with_the_tilt() -> None:
    """Mean and variance in closed form, to four standard errors; the evidence is not known."""
    sampler = gaussian(STEPS, SKIPPED)
    critic = quadratic(sampler, CURVATURE)
    runs = torch.stack(
        [
            estimated(
                psi(
                    sampler,
                    critic,
                    n=300,
                    exploration=0.8,
                    chains=60,
                    moves=16,
                    temperature=TEMPERATURE,
                    seed=1000 * run,
                )
            )
            for run in range(8)
        ]
    )
    assert runs[:, 3].isnan().all()
    truth = tilted(end_variance(sampler), CURVATURE, TEMPERATURE)[:3]
    assert deviations(runs[:, :3], truth).abs().max() < 4
    assert (runs[:, :3].std(0) / 8**0.5).max() < 0.05


def test_without_a_strength_the_first_candidates_tell_it_and_are_candidates_too() -> None:
    sampler = gaussian(STEPS, SKIPPED)
    looks = list(psi(sampler, quadratic(sampler), n=9, chains=3, moves=4, seed=11))
    first, last = looks[0], looks[-1]
    assert first.particles.streams == (11, 12, 13)
    assert first.particles.step == last.particles.step == STEPS
    assert len({*first.particles.streams, *last.particles.streams}) == 3 + 4  # 36 NFE: 3·4 for these, 3·4 looks, 4·3
    assert getattr(last, "temperature") == pytest.approx(float(first.scores.std()) / 3, rel=1e-6)  # noqa: B009


@pytest.mark.parametrize("steps", [2, 4, 20, 50])
@pytest.mark.parametrize("deviation", [None, 1.0])
def test_the_work_of_n_candidates_is_spent_and_half_of_it_steers(steps: int, deviation: float | None) -> None:
    """At any size; 50 moves of each chain, whatever n and K, left 64 NFE a single particle of 4 steps."""
    for n in range(1, 33):
        spent = cost(n, steps, deviation=deviation)
        assert (n - 1) * steps < spent.nfe <= n * steps
        sampler = gaussian(steps, SKIPPED)
        if steps <= 4 or n <= 5:
            looks = list(psi(sampler, quadratic(sampler), n=n, deviation=deviation))
            finished = sum(len(look.scores) for look in looks if look.particles.step == steps)
            assert finished >= n // 2


def test_the_proportions_are_the_papers() -> None:
    """25 steps, 5 chains, 10 particles, 50 moves: the first noise and 50 moves, then as much steering."""
    assert cost(20, 25, deviation=1.0).nfe == 5 * 52 + 10 * 24
    assert cost(20, 25, deviation=1.0, moves=50, chains=5, exploration=0.5).nfe == 5 * 51 + 10 * 24


def test_better_than_best_of_n_at_64_nfe_of_a_few_steps() -> None:
    """Where first estimates tell; in units of the reward's deviation, 1.1."""
    sampler = gaussian(STEPS, SKIPPED)
    critic = quadratic(sampler)

    def best(search: Any, seed: int) -> float:
        looks = [look for look in search(sampler, critic, n=16, seed=seed) if look.particles.step == STEPS]
        return max(float(look.scores.max()) for look in looks)

    gains = torch.tensor([best(psi, seed) - best(best_of_n, seed) for seed in range(0, 3200, 100)])
    assert gains.mean() > 0.5


@pytest.mark.parametrize(("particles", "rows"), [(2, [0, 2]), (3, [0, 1, 2]), (6, [0, 1, 2, 3, 0, 2])])
def test_particles_are_taken_from_chains_all_over(particles: int, rows: list[int]) -> None:
    """Of four chains; fewer particles than chains are not those of the first chains."""
    sampler = gaussian(STEPS, SKIPPED)
    begun = sampler.advance(sampler.init([10, 11, 12, 13]), to=1)
    look = Look(begun, torch.arange(4.0), torch.zeros_like(begun.latents), 0.0)
    work = module._Work(pilots=0, chains=4, looks=3, particles=particles)
    exploration = module._Exploration(None, work, 0.5)  # type: ignore[arg-type]  whose chains are there
    assert exploration._taken([look, look]).scores.tolist() == rows


@pytest.mark.parametrize("options", [{"exploration": 1.5}, {"moves": -1}, {"chains": 0}, {"moves": 0.5}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    sampler = gaussian(STEPS, SKIPPED)
    with pytest.raises(SearchError, match="is out of range; give a"):
        psi(sampler, quadratic(sampler), n=8, **options)
