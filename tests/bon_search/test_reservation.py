"""Reservation values against their closed forms."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bon_search.calibrate import Previews, best_of_n_score
from bon_search.errors import SearchError
from bon_search.forecast import fit, log_scale_error
from bon_search.replay import calibrate_forecast, reach, replay
from bon_search.reservation import PRICES, Reservations, Tally, zeta
from tests.bon_search.trajectories import normal_previews

SEEN, UNSEEN = normal_previews(60, 64), normal_previews(60, 96, seed=1)


def expected_gain(z: Tensor) -> Tensor:
    """E[(ε − z)⁺] of a standard normal ε."""
    return (-z.square() / 2).exp() / math.sqrt(2 * math.pi) - z * torch.special.ndtr(-z)


def inside(values: Tensor) -> Tensor:
    """Where prices leave a value on the grid and tails do not rest on a node or two."""
    return (values > -4) & (values < 1.5)


def test_one_box_is_worth_what_weitzman_says() -> None:
    one = torch.ones(1, dtype=torch.float64)
    value = zeta(one, 3 * one)[:, 0]
    here = inside(value)
    assert int(here.sum()) > 7
    torch.testing.assert_close(expected_gain(value[here]), 3 * PRICES.exp()[here], rtol=0.02, atol=2e-3)
    assert bool((value.diff() <= 0).all())  # dearer boxes are worth less


def test_a_box_that_shows_all_at_the_first_look_saves_the_rest_of_its_cost() -> None:
    """E[(ε − z − c_2)⁺] = c_1, since after the first look only those above z + c_2 are finished."""
    scales, costs = torch.tensor([1.0, 0.0]).double(), torch.tensor([2.0, 5.0]).double()
    first, second = zeta(scales, costs).T
    prices = PRICES.exp()
    here = inside(first) & (prices * 5 < 1)
    assert int(here.sum()) > 7
    torch.testing.assert_close(expected_gain(first + prices * 5)[here], 2 * prices[here], rtol=0.03, atol=2e-3)
    sure = prices * 5 < 4.9
    torch.testing.assert_close(second[sure], -5 * prices[sure], atol=1e-3, rtol=0)


def test_what_is_known_of_a_prompt_is_the_posterior_of_normal_laws() -> None:
    """Precisions add up; where the prior is vague, the sample says all."""
    prior = torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64)
    forecast = replace(fit(SEEN), mean_covariance=prior.diag(), log_scale_covariance=1e6 * torch.eye(3).double())
    values = Reservations(forecast, 20, 0.002)
    parts = torch.randn(1, 9, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    tally = Tally(torch.full((1, 3), 9.0).double(), parts.sum(dim=1), parts.square().sum(dim=1))
    means, doubt, scales = values._prompts(tally)
    bias, _ = log_scale_error(torch.tensor([9.0]).double())
    torch.testing.assert_close(scales, parts.std(dim=1) * (-bias).exp(), rtol=1e-5, atol=0)
    precision = 9 / scales.square() + 1 / prior
    expected = (forecast.means / prior + parts.sum(dim=1) / scales.square()) / precision
    torch.testing.assert_close(means, expected)
    torch.testing.assert_close(doubt, (1 / precision).flip(1).cumsum(1).flip(1))
    means, doubt, _ = values._prompts(Tally.empty(1, 3))
    torch.testing.assert_close(means[0], forecast.means)
    assert doubt[0].tolist() == pytest.approx([5.25, 1.25, 0.25])


def test_a_tally_counts_what_is_valid() -> None:
    tally = Tally.empty(2, 3)
    valid = torch.tensor([[True, False], [True, True]])
    tally = tally.add(torch.tensor([1, 0]), torch.tensor([[2.0, 9.0], [3.0, 4.0]]).double(), valid)
    assert tally.count.tolist() == [[0, 1, 0], [2, 0, 0]]
    assert tally.total.tolist() == [[0, 2, 0], [7, 0, 0]]
    assert tally.squares.tolist() == [[0, 4, 0], [25, 0, 0]]
    assert tally[torch.tensor([1])].total.tolist() == [[7, 0, 0]]


def test_best_of_16_on_other_prompts_at_two_thirds_of_its_cost() -> None:
    """Of these candidates a third of the variance shows at 30 % of the steps and three quarters at 60 %."""
    wanted = best_of_n_score(UNSEEN.scores[..., -1], 16)
    price, found = reach(fit(SEEN), UNSEEN, wanted, draws=4)
    assert float(found.score.mean()) >= wanted
    assert float(found.cost.mean()) < 0.67 * 16 * 20.12
    dearer = replay(fit(SEEN), UNSEEN, price=1.3 * price, draws=4)
    assert float(dearer.score.mean()) < wanted
    batched = replay(fit(SEEN), UNSEEN, price=price, draws=4, batch_size=4)
    assert float(found.cost.mean()) < float(batched.cost.mean())


def test_more_money_is_spent_on_more_candidates_and_better_ones() -> None:
    dear, cheap = (replay(fit(SEEN), UNSEEN, price=price, draws=2) for price in (0.01, 0.001))
    for name in ("cost", "score", "started"):
        assert float(getattr(dear, name).mean()) < float(getattr(cheap, name).mean())
    assert int(cheap.started.max()) <= 64


def test_no_price_buys_what_is_not_there() -> None:
    few = Previews(UNSEEN.scores[:3], UNSEEN.shares, UNSEEN.steps, UNSEEN.look_cost)
    with pytest.raises(SearchError, match="allow more"):
        reach(fit(SEEN), few, float(UNSEEN.scores.max()) + 1, n=4, draws=1)


def test_a_calibrated_forecast_has_the_price_of_its_target() -> None:
    seen = Previews(SEEN.scores[:32], SEEN.shares, SEEN.steps, SEEN.look_cost)
    found, ratio = calibrate_forecast(seen, target=8, draws=2)
    assert float(replay(found, seen, price=found.price, draws=2).score.mean()) >= best_of_n_score(
        seen.scores[..., -1], 8
    )
    unseen = replay(found, UNSEEN, price=found.price, draws=2)
    assert float(unseen.cost.mean()) / (8 * 20.12) == pytest.approx(ratio, rel=0.2)
    assert float(unseen.score.mean()) == pytest.approx(best_of_n_score(UNSEEN.scores[..., -1], 8), abs=0.12)
    with pytest.raises(SearchError, match="needs 96 candidates"):
        calibrate_forecast(SEEN, target=32)
