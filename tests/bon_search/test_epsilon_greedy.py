"""Epsilon-greedy noise search: a known optimum, the law of its moves, and none of the faults of its forerunner."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from bon_search.errors import SearchError
from bon_search.search import Scored
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.epsilon_greedy import cost, epsilon_greedy
from pipelines.particles import Particles
from tests.bon_search.search_contract import (
    FAMILIES,
    STEPS,
    check_cost,
    check_family,
    check_repeats,
    clean,
    finished,
    found,
    gains,
    near,
    normal,
    outward,
)


@pytest.mark.parametrize(
    ("n", "steps", "options"),
    [
        (1, 1, {}),
        (5, 2, {}),
        (6, 7, {"neighbours": 2}),
        (3, 20, {"every": 3, "start": 0.1}),
        (9, 20, {"every": 4, "start": 1.0}),
    ],
)
def test_its_cost_is_that_of_n_candidates(n: int, steps: int, options: dict[str, Any]) -> None:
    check_cost(epsilon_greedy, cost, n, steps, **options)
    assert cost(n, steps, **options).nfe == n * steps


def test_it_comes_nearer_to_the_optimum_than_best_of_n() -> None:
    ours = -found(epsilon_greedy(normal(4), near(1.0), n=16))
    assert ours < 0.02
    assert -found(best_of_n(normal(4), near(1.0), n=16)) > 0.2


def test_it_beats_best_of_n_at_equal_nfe() -> None:
    """Every level adds the expected maximum of its fresh noise to what earlier ones chose."""
    better = gains(epsilon_greedy, outward, dimension=16, n=16)
    assert better.min() > 1.0
    assert better.mean() > 2.5


def test_fresh_noises_add_up_to_the_known_expectation() -> None:
    """For N(0, 1), alpha = sin(a), sigma = cos(a): x0 = sin(a)·x, the noise in x is e = cos(a)·x, and e ← max(e, z, …).

    A level keeps the largest of the noise that the ODE leads to and of 3 fresh ones, x ← sin(a')·x0 + cos(a')·e.
    """
    runs, steps = 200, 6
    options: dict[str, Any] = {"n": 4, "epsilon": 1.0, "start": 0.34}
    ours = [_highest(epsilon_greedy(normal(1, steps), _first_coordinate, seed=10 * k, **options)) for k in range(runs)]

    generator = torch.Generator().manual_seed(1)
    turn = math.pi / 2 / steps
    y = math.cos(turn) * torch.randn(50_000, 4, generator=generator).amax(dim=1)  # at step 1; the best preview at 2
    for step in range(2, steps):
        x0, e = math.sin(turn * (step - 1)) * y, math.cos(turn * (step - 1)) * y
        e = torch.maximum(e, torch.randn(50_000, 3, generator=generator).amax(dim=1))
        y = math.sin(turn * step) * x0 + math.cos(turn * step) * e
    expected = float((math.sin(turn * (steps - 1)) * y).mean())
    spread = float(torch.tensor(ours).std()) / math.sqrt(runs)
    assert sum(ours) / runs == pytest.approx(expected, abs=4 * spread)


def test_proposals_are_denoised_from_the_level_that_they_are_at() -> None:
    """The forerunner asks the network about x at step k + 1 as if it were at step k."""
    sampler = normal(3)
    list(epsilon_greedy(sampler, outward, n=6, every=1))
    levels = [before.step for before, _ in sampler.moves]
    assert levels == sorted(levels)
    assert set(levels) == {0, *range(5, 20)}
    for before, after in sampler.moves[1:]:
        assert after.x0 is not None
        expected = sampler.law.posterior(before.latents, *sampler.levels[before.step]).mean
        torch.testing.assert_close(after.x0, expected)


def test_the_particle_as_it_is_stays_a_candidate() -> None:
    """The forerunner's pivot is not among its candidates, so it can get worse: here it would leave the good path."""
    sampler, other = normal(5), normal(5)
    wanted = other.init([42])
    path = {step: clean(other.advance(wanted, to=step)) for step in range(1, STEPS + 1)}

    def on_the_path(particles: Particles) -> Tensor:
        return -(clean(particles) - path[particles.step]).square().sum(dim=1)

    look, *proposals = finished(epsilon_greedy(sampler, on_the_path, n=6, seed=40))
    torch.testing.assert_close(look.particles.latents, path[STEPS])
    assert look.particles.streams == (42,)
    assert max(float(one.scores.max()) for one in proposals) < 0


def test_noises_stay_on_their_shell_however_many_rounds() -> None:
    """Moves that only add make |e|²/d grow, here by 1 + s² a round to 5; ours lead from the ODE's 0.85 towards 1."""
    calls = itertools.count()

    def newest(particles: Particles) -> Tensor:
        return torch.tensor([float(next(calls)) for _ in range(len(particles))])

    sampler = normal(4000)
    list(epsilon_greedy(sampler, newest, n=81, epsilon=0.0, step_size=0.5, start=0.3, every=14))
    (first, _), (level, _), *rounds = sampler.moves
    assert (first.step, level.step, len(rounds)) == (0, 6, 20)
    alpha, sigma = sampler.levels[6]
    assert level.x0 is not None
    for before, _ in rounds:
        noise = (before.latents - alpha * level.x0) / sigma
        assert noise.square().mean(dim=1).tolist() == pytest.approx([0.93] * 4, abs=0.15)
    assert torch.corrcoef(torch.cat([level.latents, rounds[-1][0].latents]))[0, 1:].max() < 0.8  # they did move


def test_epsilon_is_the_share_of_fresh_noises() -> None:
    sampler = normal(1000)
    list(epsilon_greedy(sampler, lambda particles: torch.zeros(len(particles)), n=401, neighbours=400, every=15))
    (pivot, _), (proposals, _) = sampler.moves[1:]
    alpha, _ = sampler.levels[5]
    assert pivot.x0 is not None
    signal = alpha * pivot.x0
    kept = torch.nn.functional.cosine_similarity(proposals.latents - signal, pivot.latents - signal)
    assert 0.32 < float((kept < 0.5).double().mean()) < 0.48  # 0.4 ± 3 deviations
    local = kept[kept >= 0.5]
    assert local.min() > math.sqrt(1 - 0.5**2) - 0.1
    assert local.max() > 0.99


def test_the_same_seed_is_the_same_search() -> None:
    check_repeats(lambda seed: epsilon_greedy(normal(3), outward, n=7, seed=seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_pipelines(family: str) -> None:
    check_family(family, epsilon_greedy, cost, n=4, neighbours=2)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"n": 0}, "at least 1"),
        ({"neighbours": 0}, "at least 1"),
        ({"every": 0}, "at least 1"),
        ({"every": 1.5}, "whole number"),
        ({"epsilon": -0.1}, "from 0 up to 1"),
        ({"step_size": 0.0}, "above 0 up to 1"),
        ({"start": 0.0}, "above 0 up to 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_spent(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        epsilon_greedy(normal(1), outward, **({"n": 4} | options))


def test_a_reward_that_only_ranks_is_refused() -> None:
    def ranks(particles: Particles) -> Tensor:
        return outward(particles)

    ranks.absolute = False  # type: ignore[attr-defined]
    with pytest.raises(SearchError, match=r"epsilon_greedy .* best_of_n"):
        epsilon_greedy(normal(1), ranks, n=4)


def _first_coordinate(particles: Particles) -> Tensor:
    """Of the latents when finished, of x0 before."""
    points = particles.latents if particles.step == 6 else particles.x0
    assert points is not None
    return points[:, 0]


def _highest(looks: Iterator[Scored]) -> float:
    """The best score of the last level."""
    return max(float(look.scores.max()) for look in looks if look.particles.step == 6)
