"""A plan turns a search, a number and a budget into what is started."""

import pytest

from bon_search.errors import SearchError
from bon_search.ledger import Cost
from bon_search.plan import USUAL, make_plan

STEPS = 20


def planned(search: str = "best_of_n", n: int | None = None, **limits: float) -> tuple[int, bool]:
    plan = make_plan(search, n=n, seed=0, steps=STEPS, options={}, budget=Cost.at_most(**limits))
    return plan.n, plan.endless


def test_without_a_budget_the_number_is_the_users_or_the_usual() -> None:
    assert planned() == (USUAL, False)
    assert planned(n=5) == (5, False)


def test_a_budget_finds_the_number_or_lowers_it() -> None:
    assert planned(nfe=10 * STEPS) == (10, False)
    assert planned(n=4, nfe=10 * STEPS) == (4, False)
    assert planned(n=64, nfe=10 * STEPS + 19) == (10, False)
    assert planned(n=64, rewards=3) == (3, False)


def test_pruning_starts_more_for_the_same_budget() -> None:
    assert planned("halving", nfe=10 * STEPS)[0] > 10


def test_time_alone_repeats_the_search_until_it_is_up() -> None:
    assert planned(seconds=5) == (USUAL, True)
    assert planned(n=4, seconds=5) == (4, False)


@pytest.mark.parametrize("limits", [{"nfe": 19}, {"rewards": 0.5}, {"decodes": 0}])
def test_a_budget_below_one_candidate_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(SearchError, match="One candidate costs 20 NFE"):
        planned(**limits)
