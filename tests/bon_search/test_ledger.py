"""The ledger: sums are exact, a budget is never overshot."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon_search.errors import BudgetExceeded, SearchError
from bon_search.ledger import Cost, Ledger, MeteredSampler
from tests.bon_search.toy import standard_normal

costs = st.builds(Cost, nfe=st.integers(0, 50), rewards=st.integers(0, 50), decodes=st.integers(0, 50))


@given(st.lists(costs, max_size=8))
def test_spent_is_the_sum_of_what_was_reserved(moves: list[Cost]) -> None:
    ledger = Ledger()
    for move in moves:
        ledger.reserve(move)
    spent = ledger.spent
    assert (spent.nfe, spent.rewards, spent.decodes) == (
        sum(move.nfe for move in moves),
        sum(move.rewards for move in moves),
        sum(move.decodes for move in moves),
    )


@given(st.lists(costs, max_size=8), st.integers(0, 100))
def test_no_sequence_of_moves_overshoots(moves: list[Cost], limit: int) -> None:
    ledger = Ledger(Cost.at_most(nfe=limit))
    for move in moves:
        before = ledger.spent.nfe
        if before + move.nfe > limit:
            with pytest.raises(BudgetExceeded, match=rf"beyond the budget of {limit}\b"):
                ledger.reserve(move)
            assert ledger.spent.nfe == before
        else:
            ledger.reserve(move)
    assert ledger.spent.nfe <= limit


def test_time_is_a_budget_too() -> None:
    with pytest.raises(BudgetExceeded, match="seconds"):
        Ledger(Cost.at_most(seconds=0)).reserve(Cost(nfe=1))


def test_what_a_move_made_is_looked_at_however_late_it_is() -> None:
    ledger = Ledger(Cost.at_most(seconds=0, decodes=3))
    ledger.reserve(Cost(decodes=3))
    ledger.reserve(Cost(rewards=3))
    with pytest.raises(BudgetExceeded, match="decodes"):  # what is counted is a limit all the same
        ledger.reserve(Cost(decodes=1))
    assert ledger.spent.rewards == 3


def test_how_long_a_move_takes_is_learned_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first move, which no forecast could refuse; it is split, which changes nothing."""
    ledger = Ledger(Cost.at_most(seconds=0.51))
    monkeypatch.setattr("bon_search.ledger.time.perf_counter", lambda: ledger._start + 0.1 * ledger._spent.nfe)
    sampler = MeteredSampler(standard_normal(), ledger)
    with pytest.raises(BudgetExceeded) as refused:
        sampler.advance(sampler.init([0, 1]), 4)
    assert ledger.spent.nfe == 2
    assert refused.value.particles is not None
    assert refused.value.particles.step == 1
    ledger.kept_back = Cost()
    sampler.advance(refused.value.particles[[0]], 4)
    assert ledger.spent.seconds == pytest.approx(0.5)


def test_no_move_gives_anything_back() -> None:
    ledger = Ledger()
    sampler = MeteredSampler(standard_normal(), ledger)
    particles = sampler.advance(sampler.init([0]), 4)
    with pytest.raises(SearchError, match="renoise goes back"):
        sampler.advance(particles, 0)
    assert ledger.spent.nfe == 4


def test_an_unnamed_limit_is_none() -> None:
    assert Cost.at_most(nfe=3) == Cost(3, math.inf, math.inf, math.inf, math.inf)


def test_the_metered_sampler_counts_what_the_formula_says_and_changes_nothing() -> None:
    ledger = Ledger()
    plain, metered = standard_normal(), MeteredSampler(standard_normal(), ledger)
    middle = metered.advance(metered.init([3, 4, 5]), 1)
    end = metered.advance(middle, 4)
    metered.decode(metered.renoise(end, 2, seed=0))
    assert (ledger.spent.nfe, ledger.spent.decodes) == (3 * 4, 3)
    assert end.latents.equal(plain.advance(plain.init([3, 4, 5]), 4).latents)


def test_what_is_kept_back_is_out_of_reach() -> None:
    ledger = Ledger(Cost.at_most(nfe=10))
    ledger.kept_back = Cost(nfe=4)
    with pytest.raises(BudgetExceeded):
        ledger.reserve(Cost(nfe=7))
    ledger.reserve(Cost(nfe=6))


def test_a_budget_affords_whole_moves() -> None:
    ledger = Ledger(Cost.at_most(nfe=10, rewards=2))
    assert ledger.affords(Cost(nfe=3)) == 3
    assert ledger.affords(Cost(nfe=3, rewards=1)) == 2
    assert ledger.affords(Cost(decodes=1)) is None


def test_a_move_that_will_not_end_in_time_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("bon_search.ledger.time.perf_counter", lambda: now)
    ledger = Ledger(Cost.at_most(seconds=10))
    ledger.reserve(Cost(nfe=6))  # nothing is known yet
    now = 6.0
    ledger.reserve(Cost(nfe=4))
    now = 9.0
    assert ledger.affords(Cost(nfe=1)) == 1  # 0.9 seconds an NFE
    with pytest.raises(BudgetExceeded, match="seconds"):
        ledger.reserve(Cost(nfe=2))
