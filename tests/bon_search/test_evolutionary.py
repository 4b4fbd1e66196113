"""Evolutionary search: mutation on the marginal, mild tournaments, an elite, and what all of it costs."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bon_search.errors import SearchError
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.evolutionary import cost, evolutionary
from pipelines.particles import Particles
from tests.bon_search.search_contract import (
    FAMILIES,
    STEPS,
    check_cost,
    check_family,
    check_repeats,
    gains,
    indifferent,
    normal,
    outward,
)
from tests.bon_search.tilts import mixture

CASES: list[tuple[int, int, dict[str, Any]]] = [
    (1, 1, {}),
    (2, 2, {}),
    (5, 3, {}),
    (16, 20, {}),
    (7, 28, {"times": (0.0, 0.0, 0.5, 1.0), "depth": 0.3}),
    (6, 9, {"times": ()}),
    (10, 20, {"times": 0.5, "elites": 1, "tournament": 1}),
]


@pytest.mark.parametrize(("n", "steps", "options"), CASES)
def test_the_cost_is_what_was_spent(n: int, steps: int, options: dict[str, Any]) -> None:
    check_cost(evolutionary, cost, n, steps, **options)


@pytest.mark.parametrize("steps", [5, 28, 50])
@pytest.mark.parametrize("n", [2, 5, 16, 64])
def test_nearly_the_whole_budget_is_spent(n: int, steps: int) -> None:
    """What is left does not pay for the cheapest child."""
    assert (n - 0.4) * steps < cost(n, steps).nfe <= n * steps
    assert cost(n, steps).rewards >= n


@pytest.mark.parametrize("time", [0.0, 0.4, 0.8, 1.0])
def test_mutants_follow_the_law_of_the_model(time: float) -> None:
    """Adding noise to a state without going back a noise level, as the forerunner does, widens the law."""
    sampler = mixture()
    deviation = sampler.law.covariance.diagonal().sqrt()

    def children(seed: int) -> Tensor:
        looks = evolutionary(sampler, indifferent, n=800, times=(time,), depth=0.25, tournament=1, seed=seed)
        points = list(looks)[1].particles.latents
        return torch.cat([points.mean(dim=0) - sampler.law.mean, (points.var(dim=0) / deviation.square()).log()])

    found = torch.stack([children(1000 * k) for k in range(10)])  # mean and variance of each coordinate
    assert (found.mean(dim=0) / (found.std(dim=0) / math.sqrt(10))).abs().max() < 6
    assert found[:, 2:].mean(dim=0).abs().max() < 0.06


def test_it_beats_best_of_n_at_equal_nfe() -> None:
    better = gains(evolutionary, outward, dimension=16, n=64)
    assert better.mean() > 0.3
    assert (better > 0).double().mean() > 0.7


def ranks_of_parents(n: int, tournament: int) -> Tensor:
    """Mutate but little, so that a child lies beside its parent: the parents' ranks, 0 the worst and 1 the best."""
    sampler = normal(8)
    first, second = evolutionary(sampler, outward, n=n, times=(0.0,), mutation=0.02, tournament=tournament)
    parents = torch.cdist(second.particles.latents, first.particles.latents).argmin(dim=1)
    return first.scores.argsort().argsort()[parents] / (len(first.scores) - 1)


@pytest.mark.parametrize(("tournament", "expected"), [(1, 1 / 2), (3, 3 / 4), (9, 9 / 10)])
def test_the_best_of_a_few_entrants_is_a_parent(tournament: int, expected: float) -> None:
    """The mean rank of the best of k is k / (k + 1). With 90 % of the population as entrants it is nearly always 1."""
    ranks = ranks_of_parents(n=500, tournament=tournament)
    assert len(ranks) == 300
    assert float(ranks.mean()) == pytest.approx(expected, abs=0.06)


def test_the_elite_outlives_bad_generations_and_is_not_evaluated_again() -> None:
    """Each generation scores less than all before it, so the second must have the elite of the first for parents."""
    generations = itertools.count()

    def falling(particles: Particles) -> Tensor:
        return outward(particles) - 1000 * next(generations)

    sampler = normal(200)
    looks = list(evolutionary(sampler, falling, n=100, times=(0.0, 0.0, 0.0), mutation=0.02, elites=20, tournament=9))
    first, *later = (look.particles.latents for look in looks)
    assert [len(one) for one in (first, *later)] == [40, 20, 20, 20]
    elite = first[looks[0].scores.topk(20).indices]
    for before, after in itertools.pairwise(later):  # all but 2^-9 of the tournaments have an entrant of the elite
        nearest = torch.cdist(after, torch.cat([elite, before])).argmin(dim=1)  # its parent: 0.02 away, siblings 0.03
        assert (nearest < 20).all()
    assert sum(len(before) for before, after in sampler.moves if after.step == STEPS) == 100


def test_the_first_generation_are_the_first_candidates_of_best_of_n() -> None:
    first, *_ = evolutionary(normal(3), outward, n=20, seed=9)
    whole = next(best_of_n(normal(3), outward, n=8, seed=9))
    torch.testing.assert_close(first.particles.latents, whole.particles.latents)


def test_the_same_seed_is_the_same_search() -> None:
    check_repeats(lambda seed: evolutionary(normal(3), outward, n=14, seed=seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_pipelines(family: str) -> None:
    check_family(family, evolutionary, cost, n=6)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"n": 0}, "at least 1"),
        ({"elites": 0}, "at least 1"),
        ({"tournament": 0}, "at least 1"),
        ({"mutation": 0.0}, "above 0 up to 1"),
        ({"depth": 2.0}, "above 0 up to 1"),
        ({"times": (0.5, 1.5)}, "from 0 up to 1"),
        ({"times": (0.5, 0.2)}, "in order"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_spent(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        evolutionary(normal(1), outward, **({"n": 4} | options))


def test_a_reward_that_only_ranks_is_refused() -> None:
    def ranks(particles: Particles) -> Tensor:
        return outward(particles)

    ranks.absolute = False  # type: ignore[attr-defined]
    with pytest.raises(SearchError, match=r"evolutionary .* best_of_n"):
        evolutionary(normal(1), ranks, n=4)
