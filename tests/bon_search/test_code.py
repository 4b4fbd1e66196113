"""CoDe: what each block gains is a formula, a block of all steps is best-of-N, and every child is looked at itself."""

from typing import Any

import pytest
import torch

from bon_search.errors import SearchError
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.code import code, cost
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.transition import Eta
from tests.bon_search.branching_contract import (
    STEPS,
    best_of,
    check_cost,
    check_family,
    check_mean,
    check_repeats,
    exact_normal,
    expected_best,
    gain,
    runs_of,
    three_modes,
    value,
)
from tests.bon_search.search_contract import FAMILIES
from tests.bon_search.tilts import CURVED


def test_it_gains_at_each_block_the_expected_maximum_of_its_children() -> None:
    """Choices at 2, 4 and 6 see the states at 1, 3 and 5, and the finished ones are chosen too."""
    seen = gain(1) + gain(3, 2) + gain(5, 4) + gain(8, 6)
    check_mean(runs_of(code, value, n=8, runs=120, start=0.25), expected_best(8) * seen)


def test_each_chain_has_the_choice_of_its_own_children_alone() -> None:
    """Of 2 chains of 4 children the mean over chains is that of one chain of 4."""
    seen = gain(1) + gain(3, 2) + gain(5, 4) + gain(8, 6)
    ends = [list(code(exact_normal(), value, n=8, chains=2, start=0.25, seed=1000 * k))[-1].scores for k in range(120)]
    for chain in (slice(0, 4), slice(4, 8)):
        check_mean(torch.stack([scores[chain].max() for scores in ends]), expected_best(4) * seen)


def test_a_block_of_all_steps_is_best_of_n() -> None:
    (only,) = code(exact_normal(), value, n=6, every=9, start=1.0)
    (plain,) = best_of_n(exact_normal(), value, n=6)
    assert only.particles.latents.equal(plain.particles.latents)


def test_it_beats_best_of_n_at_equal_nfe() -> None:
    """By the formula 2.3 against 1.42 on the normal; on three modes by whatever it is."""
    sampler = three_modes(eta=1.0)
    ours, plain = (runs_of(search, CURVED.critic(20), 8, 24, sampler) for search in (code, best_of_n))
    assert (ours - plain).mean() > 0.4


def test_children_are_compared_by_estimates_of_their_own() -> None:
    """Taking the x0 that children are born with compares one and the same number: the choice would be random."""
    for look in code(exact_normal(), value, n=8, start=0.25):
        assert len(look.scores.unique()) == 8


def test_children_are_made_in_one_batch_and_a_choice_adds_no_evaluation() -> None:
    """The reference loops over children, and evaluates the chosen one again."""
    sampler = exact_normal()
    looks = list(code(sampler, value, n=8))
    assert [len(moved) for _, moved in sampler.moves] == [8] * len(looks)
    assert sampler.nfe == 8 * STEPS


@pytest.mark.parametrize(
    ("n", "steps", "options"),
    [(1, 1, {}), (3, 2, {}), (5, 7, {"every": 3, "chains": 2}), (6, 20, {"start": 0.5}), (2, 4, {"chains": 5})],
)
def test_its_cost_is_that_of_n_candidates_and_the_looks(n: int, steps: int, options: dict[str, Any]) -> None:
    costs = {name: option for name, option in options.items() if name != "chains"}
    left = check_cost(lambda *a, **k: code(*a, **k, **options), lambda n, steps: cost(n, steps, **costs), n, steps)
    assert (left.nfe, left.rewards, left.decodes) == (0, 0, 0)
    assert cost(n, steps, **costs).nfe == n * steps


def test_where_noise_ends_the_chosen_one_goes_on_alone() -> None:
    sampler = GaussianMixtureSampler([[0.0]], [1.0], [1.0], STEPS, eta=Eta(1.0, stop=4))
    looks = list(code(sampler, value, n=6, start=0.25))
    assert [(look.particles.step, len(look.scores)) for look in looks] == [(2, 6), (4, 6), (8, 1)]
    assert best_of(looks) == float(looks[-1].scores)


def test_the_same_seed_is_the_same_search() -> None:
    check_repeats(lambda seed: code(exact_normal(), value, n=5, seed=seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_pipelines(family: str) -> None:
    check_family(family, code, n=3)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"n": 0}, "at least 1"),
        ({"every": 1}, "use svdd"),
        ({"every": 2.5}, "whole number"),
        ({"chains": 0}, "at least 1"),
        ({"start": -0.1}, "out of range"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_spent(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        code(exact_normal(), value, **({"n": 4} | options))


def test_a_deterministic_solver_is_refused_with_the_cure() -> None:
    with pytest.raises(SearchError, match="eta above 0"):
        code(three_modes(), value, n=4)
