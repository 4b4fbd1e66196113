"""The table of searches: names, options, cost formulas, and what a budget starts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon_search.errors import SearchError
from bon_search.ledger import Cost
from bon_search.listing import bibtex, listing
from bon_search.table import load_search, search_names

STEPS = 20
NEEDED = {"pandora": {"forecast": "flux_pick_score"}}  # options without a default


@pytest.mark.parametrize("name", search_names())
def test_every_search_says_what_it_does_what_it_costs_and_who_found_it(name: str) -> None:
    entry = load_search(name)
    options = NEEDED.get(name, {})
    assert entry.summary.endswith(".")
    assert entry.formula
    assert entry.references
    cost = entry.cost(4, STEPS, options)
    assert cost.nfe >= STEPS
    assert cost.seconds == 0


@pytest.mark.parametrize("name", search_names())
@given(nfe=st.integers(STEPS, 4000))
def test_a_budget_starts_as_many_as_it_pays_for_and_not_one_more(name: str, nfe: int) -> None:
    entry, options = load_search(name), NEEDED.get(name, {})
    n = entry.starts(Cost.at_most(nfe=nfe), STEPS, options)
    assert n >= 1
    assert n == 1 or entry.cost(n, STEPS, options).nfe <= nfe
    assert entry.cost(n + 1, STEPS, options).nfe > nfe


def test_a_budget_of_time_says_nothing_about_numbers() -> None:
    with pytest.raises(SearchError, match="say how many"):
        load_search("best_of_n").starts(Cost.at_most(seconds=3), STEPS, {})


def test_options_become_what_the_signature_says() -> None:
    parsed = load_search("smc").parse(["strength=3", "looks=0.25,0.5", "potential=maximum", "temperature=none"])
    assert parsed == {"strength": 3.0, "looks": (0.25, 0.5), "potential": "maximum", "temperature": None}
    assert type(parsed["strength"]) is float
    assert load_search("smc").parse([]) == {}


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("strenght=3", "did you mean 'strength'"),
        ("strength", "write an option and its value"),
        ("strength=high", "is a number, such as 3.0, but got 'high'"),
        ("potential=3", "is a word"),
        ("seed=3", "no option 'seed'"),
    ],
)
def test_a_wrong_option_is_answered_with_the_right_one(setting: str, sentence: str) -> None:
    with pytest.raises(SearchError, match=sentence):
        load_search("smc").parse([setting])


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(SearchError, match="did you mean 'halving'"):
        load_search("halvig")


def test_the_listing_names_all_and_bibtex_is_whole() -> None:
    text = listing()
    assert all(f"\n\n{name}\n" in f"\n\n{text}" for name in search_names())
    entry = bibtex("best_of_n")
    assert entry.startswith("@misc{ma2025inference,")
    assert entry.count("{") == entry.count("}")
    assert entry.count("=") == 4


def test_an_option_without_a_default_is_asked_for() -> None:
    assert NEEDED.keys() == {name for name in search_names() if _required(name)}
    with pytest.raises(SearchError, match="needs its option 'forecast'"):
        load_search("pandora").parse(["price=0.1"])


def _required(name: str) -> list[str]:
    return [option for option, p in load_search(name).options.items() if p.default is p.empty]
