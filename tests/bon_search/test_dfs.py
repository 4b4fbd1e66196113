"""DFS: exact conditioning where it starts afresh, thresholds that know no scale, and the best of each level kept."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bon_search.errors import SearchError
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.dfs import cost, dfs
from pipelines.particles import Particles
from tests.bon_search.branching_contract import (
    STEPS,
    check_cost,
    check_family,
    check_mean,
    check_repeats,
    exact_normal,
    ranking,
    runs_of,
    three_modes,
    value,
)
from tests.bon_search.search_contract import FAMILIES
from tests.bon_search.tilts import CURVED, LINEAR, Quadratic

AFRESH = {"looks": 0, "back": 1.0}


def test_starting_afresh_until_the_end_passes_is_the_conditioned_law() -> None:
    """x > 0.8 of N(0, 1): the mean is φ(0.8) / P, and a passing path takes 1 / P tries."""
    bar, n = 0.8, 300
    chance = 0.5 * math.erfc(bar / math.sqrt(2))
    scores = torch.cat([look.scores for look in dfs(exact_normal(), value, n=n, thresholds=bar, **AFRESH)])
    passed = scores[scores >= bar]
    check_mean(passed, math.exp(-(bar**2) / 2) / math.sqrt(2 * math.pi) / chance)
    assert len(passed) == pytest.approx(n * chance, abs=4 * math.sqrt(n * chance * (1 - chance)))


def test_thresholds_are_quantiles_and_know_no_scale() -> None:
    """With absolute thresholds, as in the reference, another unit of the reward is another search."""

    def other_unit(particles: Particles) -> Tensor:
        return 1000 * value(particles) - 77

    for ours, theirs in zip(dfs(exact_normal(), value, n=12), dfs(exact_normal(), other_unit, n=12), strict=True):
        assert ours.particles.latents.equal(theirs.particles.latents)


def test_each_threshold_is_the_quantile_of_the_pilots_at_that_check() -> None:
    first, second, last, *path = dfs(exact_normal(), value, n=8, looks=[2, 5], pilots=0.5, quantile=0.5, back=0.3)
    assert [len(look.scores) for look in (first, second, last)] == [4, 4, 4]
    bars = {look.particles.step: float(look.scores.double().quantile(0.5)) for look in (first, second, last)}
    for look, after in itertools.pairwise(path):
        step, later = look.particles.step, after.particles.step
        if later > step:  # it went on, so one of its states at this check passes
            seen = [float(one.scores) for one in path[: path.index(look) + 1] if one.particles.step == step]
            assert max(seen) >= bars[step]


def test_when_the_work_is_spent_the_best_state_of_each_level_goes_on() -> None:
    """The last state seen, or the first, need not be the best."""
    sampler = exact_normal()
    looks = list(dfs(sampler, value, n=6, looks=[3, 6], thresholds=[math.inf] * 3, back=0.25))
    for check, later in ((3, 6), (6, 8)):
        tried = [look for look in looks if look.particles.step == check]
        best = max(tried, key=lambda look: float(look.scores))
        (left,) = [before for before, after in sampler.moves if before.step == check and after.step == later]
        assert left.latents.equal(best.particles.latents)
    assert len([look for look in looks if look.particles.step == 3]) > 10
    assert 6 * STEPS - 2 < sampler.nfe <= 6 * STEPS


def test_going_back_is_a_new_noise_every_time_on_deterministic_solvers_too() -> None:
    sampler = three_modes(steps=STEPS)
    looks = list(dfs(sampler, value, n=6, looks=[3], thresholds=[math.inf, -math.inf], back=0.25))
    states = torch.cat([look.particles.latents for look in looks if look.particles.step == 3])
    assert len(states.unique(dim=0)) == len(states) > 10


def test_an_easy_prompt_costs_n_candidates_and_no_detour() -> None:
    sampler = exact_normal()
    looks = list(dfs(sampler, value, n=5, looks=[4], thresholds=[-math.inf, -math.inf]))
    assert [look.particles.step for look in looks] == [4, 8] * 5
    assert sampler.nfe == 5 * STEPS


@pytest.mark.parametrize("reward", [LINEAR, CURVED])
def test_it_beats_best_of_n_at_equal_nfe_on_a_deterministic_solver(reward: Quadratic) -> None:
    ours, plain = (runs_of(search, reward.critic(20), 24, 12, three_modes()) for search in (dfs, best_of_n))
    assert (ours - plain).mean() > 0.15


@pytest.mark.parametrize(
    ("n", "steps", "options"),
    [
        (1, 1, {}),
        (1, 6, {}),
        (3, 2, {}),
        (9, 20, {"pilots": 0.5, "back": 0.05}),
        (5, 9, {"pilots": 1.0}),
        (4, 7, {"thresholds": 0.9, "looks": [2]}),
    ],
)
def test_its_cost_is_at_most_that_of_n_candidates(n: int, steps: int, options: dict[str, Any]) -> None:
    left = check_cost(dfs, cost, n, steps, **options)
    assert cost(n, steps, **options).nfe == n * steps
    assert left.nfe < steps


def test_the_same_seed_is_the_same_search() -> None:
    check_repeats(lambda seed: dfs(exact_normal(), value, n=6, seed=seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_pipelines_with_their_own_deterministic_solvers(family: str) -> None:
    check_family(family, dfs, n=4, eta=0.0)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"n": 0}, "at least 1"),
        ({"quantile": 1.5}, "out of range"),
        ({"pilots": 0.0}, "above 0"),
        ({"back": 0.0}, "above 0"),
        ({"looks": [99]}, "from 1 to 8"),
        ({"thresholds": "high"}, "are no scores"),
        ({"thresholds": [0.0, 1.0]}, "2 thresholds do not suit 5 checks"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_spent(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        dfs(exact_normal(), value, **({"n": 4} | options))


def test_a_reward_that_only_ranks_is_refused() -> None:
    with pytest.raises(SearchError, match="absolute = False"):
        dfs(exact_normal(), ranking(value), n=4)
