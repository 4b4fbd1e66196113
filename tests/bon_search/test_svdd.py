"""SVDD: the tilted law where r(x0) is the soft value, a formula for the greedy choice, and no fault of the reference.

For N(0, 1) under its exact reverse and r(x) = x the soft value of a state is its x0 and a constant, so with many
children the result follows N(1 / temperature, 1). For M children the mean is a sum over the steps, by quadrature here.
"""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from bon_search.errors import SearchError
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.svdd import cost, svdd
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.particles import Particles
from pipelines.transition import Eta
from tests.bon_search.branching_contract import (
    STEPS,
    check_cost,
    check_family,
    check_mean,
    check_repeats,
    exact_normal,
    expected_best,
    gain,
    ranking,
    runs_of,
    three_modes,
    value,
)
from tests.bon_search.search_contract import FAMILIES
from tests.bon_search.tilts import CURVED

EARLY = 1 / STEPS  # the first choice sees the states at step 1
INCREMENTS = [*(gain(step + 1, step) for step in range(STEPS - 2)), gain(STEPS, STEPS - 2)]  # the last by two steps
N_OF_8 = 14  # pays for 8 children
N_OF_16 = 28  # and this for 16


def drawn_gain(m: int, strength: float) -> float:
    """E[z of one of m standard normals, drawn in proportion to exp(strength·z)], to 0.006."""
    z = torch.randn(30_000, m, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return float(((strength * z).softmax(dim=1) * z).sum(dim=1).mean())


def test_a_draw_by_the_soft_value_follows_the_tilted_law() -> None:
    """Taking the best child, as the reference does at any temperature, gives 4.6 instead of the tilt's 2 or less."""
    temperature, m = 0.5, 16
    expected = sum(one * drawn_gain(m, one / temperature) for one in INCREMENTS)
    assert 1.7 < expected < 2.0  # 1 / temperature, as m grows
    options = {"n": N_OF_16, "temperature": temperature, "start": EARLY}
    ends = []
    for k in range(120):
        *_, end = svdd(exact_normal(), value, seed=1000 * k, **options)
        assert end.log_weights is not None
        assert end.log_weights.tolist() == pytest.approx((end.scores / temperature).tolist())
        ends.append(end.log_weights.softmax(0) @ end.scores)
    check_mean(torch.stack(ends), expected)


def test_the_best_child_of_every_step_gains_the_expected_maximum() -> None:
    """A choice at every second step, by x0 that siblings share, would gain about half."""
    found = runs_of(svdd, value, n=N_OF_8, runs=120, start=EARLY)
    check_mean(found, expected_best(8) * sum(INCREMENTS))


def test_children_are_compared_by_estimates_of_their_own() -> None:
    """Those that they are born with are one and the same number."""
    looks = list(svdd(exact_normal(), value, n=N_OF_8, start=EARLY))
    assert [look.particles.step for look in looks] == list(range(2, STEPS + 1))
    assert all(len(look.scores.unique()) == 8 for look in looks)


def test_the_chosen_childs_look_is_used_and_children_are_made_in_one_batch() -> None:
    """The reference evaluates the chosen child a second time, and its children one by one."""
    sampler = exact_normal()
    looks = list(svdd(sampler, value, n=N_OF_8, start=EARLY))
    assert [len(moved) for _, moved in sampler.moves] == [8, 8] + [7, 8] * 6
    for look, after in itertools.pairwise(looks):
        assert look.particles.streams[int(look.scores.argmax())] == after.particles.streams[0]


def test_its_strength_is_in_deviations_of_the_first_look_and_stays() -> None:
    first, *_, end = svdd(exact_normal(), value, n=N_OF_8, strength=2.0)
    assert end.log_weights is not None
    assert end.log_weights.tolist() == pytest.approx((end.scores * 2.0 / first.scores.std()).tolist())


def test_equal_scores_are_no_reason_to_choose() -> None:
    def blank(particles: Particles) -> Tensor:
        return torch.zeros(len(particles))

    looks = list(svdd(exact_normal(), blank, n=N_OF_8, strength=2.0))
    assert all(look.log_weights is None for look in looks)
    firsts = {later.particles.streams[0] == look.particles.streams[0] for look, later in itertools.pairwise(looks)}
    assert firsts == {True, False}  # drawn, not always the first


def test_it_beats_best_of_n_at_equal_nfe() -> None:
    sampler = three_modes(eta=1.0)
    ours, plain = (runs_of(search, CURVED.critic(20), 8, 24, sampler) for search in (svdd, best_of_n))
    assert (ours - plain).mean() > 0.7


def test_it_reaches_the_optimum_of_a_concave_reward() -> None:
    """max a·x − c/2·|x|² = |a|² / 2c."""
    optimum = sum(a * a for a in CURVED.linear) / (2 * CURVED.curvature)
    found = runs_of(svdd, CURVED.critic(20), 16, 4, three_modes(eta=1.0))
    assert ((optimum - found) >= 0).all()
    assert (optimum - found).max() < 0.01


@pytest.mark.parametrize(
    ("n", "steps", "options"), [(1, 1, {}), (2, 5, {}), (3, 2, {}), (9, 7, {"start": 0.0}), (6, 20, {"start": 1.0})]
)
def test_its_cost_is_at_most_that_of_n_candidates(n: int, steps: int, options: dict[str, Any]) -> None:
    left = check_cost(svdd, cost, n, steps, **options)
    assert (left.nfe, left.rewards, left.decodes) == (0, 0, 0)
    assert n * steps - 2 * steps < cost(n, steps, **options).nfe <= n * steps


def test_2m_minus_1_candidates_pay_for_m_children() -> None:
    for m, steps in itertools.product((1, 2, 5, 20), (1, 4, 50)):
        first, *_ = svdd(exact_normal(steps), lambda particles: torch.zeros(len(particles)), n=2 * m - 1, start=0.0)
        assert len(first.scores) >= m


def test_where_noise_ends_the_chosen_one_goes_on_alone() -> None:
    sampler = GaussianMixtureSampler([[0.0]], [1.0], [1.0], STEPS, eta=Eta(1.0, stop=4))
    sizes = [len(look.scores) for look in svdd(sampler, value, n=7, start=EARLY)]
    assert sizes == [4, 4, 4, 4, 1, 1, 1]


def test_the_same_seed_is_the_same_search() -> None:
    check_repeats(lambda seed: svdd(exact_normal(), value, n=7, strength=1.0, seed=seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_pipelines(family: str) -> None:
    check_family(family, svdd, n=3)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"n": 0}, "at least 1"),
        ({"temperature": 0.0}, "positive"),
        ({"strength": -1.0}, "at least 0"),
        ({"start": 2.0}, "out of range"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_spent(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        svdd(exact_normal(), value, **({"n": 4} | options))


def test_what_it_needs_of_solver_and_reward() -> None:
    with pytest.raises(SearchError, match="eta above 0"):
        svdd(three_modes(), value, n=4)
    with pytest.raises(SearchError, match="absolute = False"):
        svdd(exact_normal(), ranking(value), n=4, strength=1.0)
    assert list(svdd(exact_normal(), ranking(value), n=4))  # the best child is a matter of rank
