"""Search over paths: the law without a choice, the gain with one, the cost, and stock pipelines."""

import math
from typing import Any

import pytest
import torch

from bon_search.errors import SearchError
from bon_search.portions import portions
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.paths import cost, search_over_paths
from tests.bon_search.search_contract import (
    FAMILIES,
    check_cost,
    check_family,
    check_repeats,
    gains,
    indifferent,
    near,
    normal,
    outward,
)
from tests.bon_search.tilts import mixture

CASES: list[tuple[int, int, dict[str, Any]]] = [
    (1, 1, {}),
    (5, 2, {}),
    (2, 8, {}),
    (4, 3, {}),
    (7, 20, {}),
    (16, 28, {"paths": 3, "back": 0.2, "ahead": 0.5}),
    (6, 9, {"paths": 1, "start": 0.5}),
    (3, 10, {"start": 1.0}),
]


@pytest.mark.parametrize(("n", "steps", "options"), CASES)
def test_the_cost_is_what_was_spent(n: int, steps: int, options: dict[str, Any]) -> None:
    check_cost(search_over_paths, cost, n, steps, **options)


@pytest.mark.parametrize("steps", [4, 10, 28, 50])
@pytest.mark.parametrize("n", [4, 5, 8, 16, 64])
def test_nearly_the_whole_budget_is_spent(n: int, steps: int) -> None:
    """What is left does not pay for a child in the last round, beside less than a step of each round."""
    assert 0.9 * n * steps <= cost(n, steps).nfe <= n * steps
    assert cost(n + 1, steps).nfe > cost(n, steps).nfe


def test_portions_are_even_and_never_beyond_the_amount() -> None:
    assert portions(23, (4, 3, 2)) == (2, 3, 3)  # 2 of each cost 18, then one of the last two is paid for
    assert portions(14, (9, 2, 3)) == (1, 1, 1)
    assert portions(13, (9, 2, 3)) == (0, 2, 3)
    assert portions(3, (4, 4)) == (0, 0)
    assert portions(4, (4, 4)) == (0, 1)
    assert portions(7, ()) == ()


def test_without_a_choice_the_candidates_follow_the_law_of_the_model() -> None:
    """A wrong forward kernel moves the law: noise added to unscaled latents makes its variance 1.6 times as large."""
    sampler, paths = mixture(), 1500
    *_, end = search_over_paths(sampler, indifferent, n=4 * paths, paths=paths)
    points, law = end.particles.latents[:paths], sampler.law  # one child of each path, so independent
    deviation = law.covariance.diagonal().sqrt()
    mean = (points.mean(dim=0) - law.mean) / deviation * math.sqrt(paths)
    fourth = (points - law.mean).pow(4).mean(dim=0) / deviation**4
    variance = (points.var(dim=0) / deviation**2 - 1) / (fourth - 1).sqrt() * math.sqrt(paths)
    assert torch.cat([mean, variance]).abs().max() < 4


def test_it_beats_best_of_n_at_equal_nfe() -> None:
    """Each round adds the expected maximum of its children's fresh noise to what earlier rounds chose."""
    assert (gains(search_over_paths, outward, dimension=16, n=16) > 0).all()
    assert gains(search_over_paths, near(1.0), dimension=4, n=16).mean() > 1.0


def test_children_are_told_apart_by_previews_of_their_own() -> None:
    """A preview is one step old: a child that was not denoised for at least two would show its parent's."""
    start, *rounds = search_over_paths(normal(3), outward, n=8)
    assert len(rounds) > 3
    assert len(start.particles) == 2
    for look in rounds:
        assert look.particles.x0 is not None
        assert len(look.particles.x0.unique(dim=0)) == len(look.particles) >= 2
        assert len(look.scores.unique()) == len(look.particles)


def test_the_children_of_the_best_go_on() -> None:
    """Thrown back a little, a child is nearer to its own parent than to others, and no child is of the worst."""
    sampler = normal(64)
    looks = list(search_over_paths(sampler, outward, n=12, start=0.5, back=0.05, ahead=0.1))
    for before, after in zip(looks[1:-1], sampler.moves[2:], strict=True):
        nearest = torch.cdist(after[0].latents, before.particles.latents).argmin(dim=1)
        top = before.scores.topk(2).indices.tolist()
        assert sorted(nearest.unique().tolist()) == sorted(top)


def test_the_same_seed_is_the_same_search() -> None:
    check_repeats(lambda seed: search_over_paths(normal(3), outward, n=5, seed=seed))


@pytest.mark.parametrize(("n", "steps"), [(1, 20), (3, 2)])
def test_where_it_cannot_branch_it_is_best_of_n(n: int, steps: int) -> None:
    (look,) = search_over_paths(normal(2, steps), indifferent, n=n, seed=3)
    whole = next(best_of_n(normal(2, steps), indifferent, n=n, seed=3))
    assert look.particles.latents.equal(whole.particles.latents)


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_pipelines(family: str) -> None:
    check_family(family, search_over_paths, cost, n=4)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"n": 0}, "at least 1"),
        ({"paths": 0}, "at least 1"),
        ({"start": 0.0}, "above 0 up to 1"),
        ({"back": 1.2}, "above 0 up to 1"),
        ({"back": 0.3, "ahead": 0.3}, "larger than `back`"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_spent(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        search_over_paths(normal(1), outward, **({"n": 4} | options))
