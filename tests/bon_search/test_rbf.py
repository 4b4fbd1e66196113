"""RBF: what a step gains and tries are known, quotas roll over, chains end clean, and no old bar stands in the way."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from bon_search.errors import SearchError
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.rbf import cost, rbf
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.particles import Particles
from pipelines.transition import Eta
from tests.bon_search.branching_contract import (
    STEPS,
    best_of,
    check_cost,
    check_family,
    check_mean,
    check_repeats,
    exact_normal,
    gain,
    ranking,
    runs_of,
    three_modes,
    value,
)
from tests.bon_search.search_contract import FAMILIES
from tests.bon_search.tilts import CURVED

PAPER = {"starts": 0.0, "start": 0.0}  # one noise, from step 0 on


def tries(critic: Any, sampler: Any = None, **options: Any) -> dict[int, int]:
    """Looks at each step."""
    looks = rbf(sampler or exact_normal(), critic, **PAPER, **options)
    return Counter(look.particles.step for look in looks for _ in look.scores)


def test_a_step_tries_twice_on_average_and_gains_half_a_normal() -> None:
    """A child is better than its parent with chance 1/2: geometric tries, and E|z| of what the step can gain."""
    ends, counts = [], []
    for k in range(100):
        looks = list(rbf(exact_normal(), value, n=16, batch=1, seed=1000 * k, **PAPER))
        counts.append(float(sum(2 <= look.particles.step <= STEPS - 1 for look in looks)))
        ends.append([float(look.scores) for look in looks if look.particles.step == STEPS - 1][-1])
    check_mean(torch.tensor(counts, dtype=torch.float64), 2.0 * (STEPS - 2))
    half_normal = math.sqrt(2 / math.pi)
    check_mean(torch.tensor(ends, dtype=torch.float64), half_normal * sum(gain(k + 1, k) for k in range(STEPS - 2)))


def test_what_a_step_saves_is_there_for_the_next() -> None:
    """Every first child is accepted up to step 5; there none is, and the whole of what was saved can be spent."""

    def rising_to_five(particles: Particles) -> Tensor:
        return torch.full((len(particles),), float(min(particles.step, 10 - particles.step)))

    n = 11
    quota = (n * STEPS - 1) // (STEPS - 1)  # one NFE for the start
    looks = tries(rising_to_five, n=n, batch=1)
    assert [looks[step] for step in (2, 3, 4, 5)] == [1, 1, 1, 1]
    spent, rest = 1 + 4, 2 * quota
    assert looks[6] == (n * STEPS - spent - rest + 1) // 2 == 30
    assert [looks[7], looks[8]] == [(quota + 1) // 2, (quota + 2) // 2]  # nothing but one NFE was left to roll over


def test_an_overrated_early_preview_does_not_bar_all_later_steps() -> None:
    """With the best score ever as the bar, as in the reference, every later step would spend its whole quota."""

    def overrated(particles: Particles) -> Tensor:
        return value(particles) + (100.0 if particles.step == 2 else 0.0)

    looks = [tries(overrated, n=30, batch=1, seed=1000 * k) for k in range(20)]
    assert min(one[3] for one in looks) >= 15  # nothing beats the overrated parent, so the quota is spent
    for step in (4, 5, 6, 7):
        assert sum(one[step] for one in looks) / len(looks) < 4  # 2 in theory


@pytest.mark.parametrize("chains", [1, 3])
def test_every_chain_is_denoised_to_the_end_and_the_work_is_used_up(chains: int) -> None:
    """The reference ends with the x0 of the last but one step, or in mid-chain when its NFE are spent."""
    sampler = exact_normal()
    looks = list(rbf(sampler, value, n=9, chains=chains))
    assert looks[-1].particles.step == STEPS
    starts = [look for look in looks if look.particles.step == 3 and look.particles.streams[0] < 100]
    assert len(starts) == chains
    finished = [look for look in looks if look.particles.step == STEPS]
    assert len(finished) >= chains
    assert 9 * STEPS - 1 <= sampler.nfe <= 9 * STEPS


def test_proposals_come_in_batches() -> None:
    """The reference proposes one by one, with the GPU idle."""
    calls = []

    def counted(particles: Particles) -> Tensor:
        calls.append(len(particles))
        return value(particles)

    list(rbf(exact_normal(), counted, n=16))
    assert sum(calls) / len(calls) > 4


def test_it_beats_best_of_n_at_equal_nfe() -> None:
    sampler = three_modes(eta=1.0)
    ours, plain = (runs_of(search, CURVED.critic(20), 8, 20, sampler) for search in (rbf, best_of_n))
    assert (ours - plain).mean() > 0.6


def test_it_reaches_the_optimum_of_a_concave_reward() -> None:
    """max a·x − c/2·|x|² = |a|² / 2c."""
    optimum = sum(a * a for a in CURVED.linear) / (2 * CURVED.curvature)
    found = runs_of(rbf, CURVED.critic(20), 16, 4, three_modes(eta=1.0))
    assert ((optimum - found) >= 0).all()
    assert (optimum - found).max() < 0.01


@pytest.mark.parametrize(
    ("n", "steps", "options"),
    [
        (1, 1, {}),
        (1, 6, {}),
        (3, 2, {}),
        (5, 7, {"chains": 2, "batch": 1}),
        (6, 20, {"starts": 1.0, "start": 0.5}),
        (6, 9, {"start": 1.0, "chains": 4}),
    ],
)
def test_its_cost_is_at_most_that_of_n_candidates(n: int, steps: int, options: dict[str, Any]) -> None:
    costs = {name: option for name, option in options.items() if name != "batch"}
    left = check_cost(lambda *a, **k: rbf(*a, **k, **options), lambda n, steps: cost(n, steps, **costs), n, steps)
    assert cost(n, steps, **costs).nfe == n * steps
    if options.get("start") != 1.0:  # where only the start is chosen there is nothing to spend the rest on
        assert left.nfe <= 1


def test_where_noise_ends_there_is_nothing_to_propose() -> None:
    sampler = GaussianMixtureSampler([[0.0]], [1.0], [1.0], STEPS, eta=Eta(1.0, stop=4))
    looks = tries(value, sampler, n=12, batch=2)
    assert min(looks[step] for step in (2, 3, 4, 5)) >= 2
    assert [looks[step] for step in (6, 7, 8)] == [1, 1, 1]


def test_the_best_is_a_finished_one() -> None:
    looks = list(rbf(exact_normal(), value, n=9))
    assert best_of(looks) == max(float(look.scores.max()) for look in looks if look.particles.step == STEPS)


def test_the_same_seed_is_the_same_search() -> None:
    check_repeats(lambda seed: rbf(exact_normal(), value, n=6, chains=2, seed=seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_pipelines(family: str) -> None:
    check_family(family, rbf, n=3)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"n": 0}, "at least 1"),
        ({"chains": 0}, "at least 1"),
        ({"batch": 0}, "at least 1"),
        ({"starts": 1.5}, "out of range"),
        ({"start": "late"}, "out of range"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_spent(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        rbf(exact_normal(), value, **({"n": 4} | options))


def test_what_it_needs_of_solver_and_reward() -> None:
    with pytest.raises(SearchError, match="eta above 0"):
        rbf(three_modes(), value, n=4)
    with pytest.raises(SearchError, match="absolute = False"):
        rbf(exact_normal(), ranking(value), n=4)
