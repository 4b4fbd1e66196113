"""Rules that stop best-of-N, and drafts that choose its seeds."""

import math

import pytest
import torch
from torch import Tensor

from bon_search.calibrate import best_of_n_score
from bon_search.critic import PictureCritic
from bon_search.errors import SearchError
from bon_search.ledger import Ledger, MeteredSampler
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.draft import cost, draft, draft_cost, draft_then_refine
from bon_search.searches.stopping import best_of_n_until, expected_gain
from pipelines.particles import Particles
from tests.bon_search.toy import Brightness, first_coordinate, standard_normal


def test_it_stops_at_the_first_score_that_is_good_enough() -> None:
    whole = next(best_of_n(standard_normal(), first_coordinate, n=40)).scores.tolist()
    goal = 1.0
    first = next(k for k, score in enumerate(whole) if score >= goal)
    looks = list(best_of_n_until(standard_normal(), first_coordinate, n=40, until=goal))
    assert [look.scores.item() for look in looks] == pytest.approx(whole[: first + 1])
    pairs = list(best_of_n_until(standard_normal(), first_coordinate, n=40, until=goal, batch_size=4))
    assert len(pairs) == first // 4 + 1


def test_without_a_rule_it_is_best_of_n() -> None:
    looks = list(best_of_n_until(standard_normal(), first_coordinate, n=7, batch_size=3))
    whole = next(best_of_n(standard_normal(), first_coordinate, n=7))
    torch.testing.assert_close(torch.cat([look.scores for look in looks]), whole.scores)


def test_the_expected_gain_of_normal_scores_falls_with_the_luck_of_the_best() -> None:
    """E[(X − b)⁺] = s·(φ(z) − z·Φ(−z)), at s² = (4 + Σ(x − mean)²) / 8 · 6/5 for five scores and deviation 1."""
    scores = [-1.0, -0.5, 0.0, 0.5, 1.0]
    spread = math.sqrt((4 + 2.5) / 8 * 6 / 5)
    z = 1 / spread
    expected = spread * (math.exp(-z * z / 2) / math.sqrt(2 * math.pi) - z * math.erfc(z / math.sqrt(2)) / 2)
    assert expected_gain(scores, 1.0) == pytest.approx(expected)
    assert expected_gain([*scores[:-1], 3.0], 1.0) < expected_gain(scores, 1.0) / 3
    assert expected_gain([10 * score for score in scores], 10.0) == pytest.approx(10 * expected)


def test_scores_that_crowd_at_a_ceiling_promise_nothing() -> None:
    assert expected_gain([-1.0, 0.0, 0.5, 0.999, 1.0, 1.0, 1.0], 1.0) < 0.001


def test_a_price_spends_no_more_than_best_of_n_of_the_same_quality() -> None:
    scores = torch.randn(400, 60, generator=torch.Generator().manual_seed(0))
    for price, usual in ((0.05, 7), (0.025, 12)):
        made, found = [], []
        for row in scores.tolist():
            m = next(m for m in range(3, 60) if expected_gain(row[:m], 1.0) <= price)
            made.append(m)
            found.append(max(row[:m]))
        mean = sum(made) / len(made)
        assert mean == pytest.approx(usual, abs=1)
        low, high = (best_of_n_score(scores, n) for n in (math.floor(mean), math.ceil(mean)))
        plain = low + (mean % 1) * (high - low)
        assert sum(found) / len(found) > plain - 0.05


def test_a_price_stops_a_run() -> None:
    looks = list(best_of_n_until(standard_normal(), first_coordinate, n=60, price=0.05, deviation=0.94))
    assert 3 <= len(looks) < 30


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"price": -1.0}, "at least 0"),
        ({"until": math.nan}, "give a score"),
        ({"price": 0.1}, "calibration"),
        ({"price": 0.1, "deviation": 0.0}, "calibration"),
        ({"batch_size": 0}, "at least 1"),
        ({"n": 0}, "at least 1"),
    ],
)
def test_rules_that_are_none_are_refused(settings: dict[str, float], cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        best_of_n_until(standard_normal(), first_coordinate, **({"n": 4} | settings))  # type: ignore[arg-type]


def test_a_reward_that_only_ranks_cannot_stop_a_run() -> None:
    def ranks(particles: Particles) -> Tensor:
        return particles.latents[:, 0]

    ranks.absolute = False  # type: ignore[attr-defined]
    with pytest.raises(SearchError, match="absolute = False"):
        best_of_n_until(standard_normal(), ranks, n=4)
    with pytest.raises(SearchError, match="absolute = False"):  # whose candidates a run makes all at once
        best_of_n_until(standard_normal(), ranks, n=4, batch_size=None)  # type: ignore[arg-type]


def test_the_seeds_of_the_best_drafts_are_run_in_full_at_the_stated_cost() -> None:
    """On one Gaussian a draft is a multiple of the full run, so that the winner is found for certain."""
    ledger = Ledger()
    full, few = (MeteredSampler(standard_normal(steps), ledger) for steps in (12, 3))
    critics = [PictureCritic(sampler, Brightness(), "a point", ledger) for sampler in (full, few)]
    drafts, end = draft_then_refine(full, critics[0], n=10, draft=few, draft_critic=critics[1], seed=7)
    assert (len(drafts.particles), len(end.particles)) == (10, 3)
    whole = next(best_of_n(standard_normal(12), first_coordinate, n=10, seed=7))
    assert set(end.particles.streams) == {7 + k for k in whole.scores.argsort(descending=True)[:3].tolist()}
    spent, planned = ledger.spent, cost(10, 12, 3)
    assert (spent.nfe, spent.rewards, spent.decodes) == (planned.nfe, planned.rewards, planned.decodes)
    assert spent.nfe == 10 * 3 + 3 * 12


def test_the_search_by_name_makes_its_own_drafts() -> None:
    ledger = Ledger()
    sampler = MeteredSampler(standard_normal(12), ledger)
    critic = PictureCritic(sampler, Brightness(), "a point", ledger)
    (end,) = draft(sampler, critic, n=10, draft_steps=3, seed=7)
    whole = next(best_of_n(standard_normal(12), first_coordinate, n=10, seed=7))
    assert set(end.particles.streams) == {7 + k for k in whole.scores.argsort(descending=True)[:3].tolist()}
    spent, planned = ledger.spent, draft_cost(10, 12, 3)
    assert (spent.nfe, spent.rewards, spent.decodes) == (planned.nfe, planned.rewards, planned.decodes)
    assert draft_cost(10, 20).nfe == 10 * 6 + 3 * 20


@pytest.mark.parametrize(("steps", "keep", "cure"), [(4, 0.5, "fewer"), (2, 0.0, "above 0"), (2, 1.5, "up to 1")])
def test_drafts_that_save_nothing_are_refused(steps: int, keep: float, cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        draft_then_refine(
            standard_normal(4),
            first_coordinate,
            n=4,
            draft=standard_normal(steps),
            draft_critic=first_coordinate,
            keep=keep,
        )
