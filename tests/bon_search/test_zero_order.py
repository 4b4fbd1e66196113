"""Zero-order search: a known optimum, a known law, and none of the faults of its forerunners."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bon_search.errors import SearchError
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.zero_order import cost, zero_order
from pipelines.particles import Particles
from tests.bon_search.search_contract import (
    FAMILIES,
    STEPS,
    check_cost,
    check_family,
    check_repeats,
    finished,
    found,
    gains,
    near,
    normal,
    outward,
)

SHRINK = math.cos(math.pi / 2 / STEPS) ** STEPS  # from the noise to the end state of N(0, I)


def begun(dimension: int, critic: Any, **options: Any) -> list[Tensor]:
    """The initial noises of each round."""
    sampler = normal(dimension)
    list(zero_order(sampler, critic, **options))
    return [before.latents for before, _ in sampler.moves]


@pytest.mark.parametrize(
    ("n", "steps", "options"),
    [(1, 1, {}), (3, 2, {}), (4, 3, {}), (18, 5, {}), (18, 5, {"neighbours": 7, "start": 1}), (6, 4, {"start": 9})],
)
def test_its_cost_is_that_of_n_candidates_since_the_pivot_is_never_evaluated_again(
    n: int, steps: int, options: dict[str, Any]
) -> None:
    """Forerunners run the base again in every round: R·(N + 1)·K NFE instead of (1 + R·N)·K."""
    check_cost(zero_order, cost, n, steps, **options)
    assert cost(n, steps, **options).nfe == n * steps


def test_the_same_seed_is_the_same_search() -> None:
    """Forerunners do not keep the noise of neighbours, so that the best picture cannot be made again."""
    check_repeats(lambda seed: zero_order(normal(3), outward, n=11, seed=seed))


def test_it_reaches_the_optimum_to_which_a_fixed_distance_does_not_come() -> None:
    errors = {rate: -found(zero_order(normal(4), near(1.0), n=240, adaptation=rate)) for rate in (0.0, 1.0)}
    assert errors[1.0] < 1e-4
    assert errors[0.0] > 1e-2
    assert -found(best_of_n(normal(4), near(1.0), n=240)) > 1e-1


def test_a_round_has_the_expected_maximum_of_its_law() -> None:
    """From a pivot r ~ N(0, 1), the best after 4 neighbours is max(r, sqrt(1 − s²)·r + s·z), by quadrature."""
    runs, size = 500, 0.6
    r, z = (torch.linspace(-7, 7, 1401, dtype=torch.float64) for _ in range(2))
    below = torch.special.ndtr((z[None] - math.sqrt(1 - size**2) * r[:, None]) / size) ** 4 * (z[None] >= r[:, None])
    density = (-r.square() / 2).exp() / math.sqrt(2 * math.pi) * 0.01
    cdf = (density[:, None] * below).sum(dim=0)  # of the best, at z
    expected = float(7 - cdf.sum() * 0.01)
    options = {"n": 5, "start": 1, "neighbours": 4, "step_size": size}
    rounds = [list(zero_order(normal(1, 2), _end, seed=10 * k, **options)) for k in range(runs)]
    best = torch.stack([torch.cat([look.scores for look in looks]).max() for looks in rounds])
    assert float(best.mean()) == pytest.approx(expected, abs=4 * float(best.std()) / math.sqrt(runs))


def test_it_beats_best_of_n_at_equal_nfe_where_the_reward_has_a_slope() -> None:
    """Its best grows as the root of the rounds, that of best-of-N as the root of a logarithm."""
    better = gains(zero_order, outward, dimension=16, n=64) / SHRINK
    assert better.mean() > 1.0
    assert (better > 0).all()


def test_a_round_without_success_keeps_the_best_and_draws_closer() -> None:
    """Forerunners throw the best away after a rejected round and draw a new base."""
    calls = itertools.count()

    def only_the_first(particles: Particles) -> Tensor:
        return torch.tensor([-float(next(calls)) for _ in range(len(particles))])

    pivot, *rounds = begun(2000, only_the_first, n=25, start=1, neighbours=4, step_size=0.5)
    for number, noises in enumerate(rounds):
        size = 0.5 * math.exp(-number / 5)
        apart = (noises - pivot).square().mean().item()
        assert apart == pytest.approx(2 - 2 * math.sqrt(1 - size**2), rel=0.12)  # sd of a mean over 8000: 1.6 %


def test_noises_stay_on_their_shell_however_long_the_climb() -> None:
    """Adding s·z without more would make |x|²/d grow by 1 + s² a round: to 36 here."""
    calls = itertools.count()

    def newest(particles: Particles) -> Tensor:
        return torch.tensor([float(next(calls)) for _ in range(len(particles))])

    rounds = begun(2000, newest, n=68, start=4, neighbours=4, step_size=0.5, adaptation=0.0)
    assert len(rounds) == 17
    for noises in rounds:
        assert noises.square().mean(dim=1).tolist() == pytest.approx([1.0] * 4, abs=0.16)  # 5 deviations


def test_more_candidates_only_lengthen_the_search() -> None:
    short, long = (finished(zero_order(normal(3), outward, n=n, seed=2)) for n in (12, 20))
    for one, other in zip(short, long, strict=False):
        assert one.particles.latents.equal(other.particles.latents)


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_pipelines(family: str) -> None:
    check_family(family, zero_order, cost, n=5, neighbours=2)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"n": 0}, "at least 1"),
        ({"neighbours": 0}, "at least 1"),
        ({"start": 0}, "at least 1"),
        ({"start": "all"}, "whole number"),
        ({"step_size": 0.0}, "above 0 up to 1"),
        ({"step_size": 1.5}, "above 0 up to 1"),
        ({"adaptation": math.nan}, "0 to keep"),
        ({"adaptation": -1.0}, "0 to keep"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_spent(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        zero_order(normal(1), outward, **({"n": 4} | options))


def test_a_reward_that_only_ranks_is_refused() -> None:
    def ranks(particles: Particles) -> Tensor:
        return outward(particles)

    ranks.absolute = False  # type: ignore[attr-defined]
    with pytest.raises(SearchError, match=r"zero_order .* best_of_n"):
        zero_order(normal(1), ranks, n=4)


def _end(particles: Particles) -> Tensor:
    """The end state of one dimension and two steps, as the noise that it came from."""
    return particles.latents[:, 0] / math.cos(math.pi / 4) ** 2
