"""Every search on tiny random pipelines of five families, by the wrapper that users call."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bon_search import BestOfNPipeline, Cost
from bon_search.recipe import read_remake
from bon_search.table import search_names
from tests.bon_search.search_contract import FAMILIES, PROMPT, pipe_of
from tests.pipelines import tiny

COMPOSED = ("halving then zero_order", "best_of_n then psi", "smc then reno")
OPTIONS: dict[str, dict[str, Any]] = {  # few candidates that start, so that these few NFE lead further
    "draft": {"draft_steps": 1},
    "pandora": {"forecast": "embedded_llava_reward"},
    "zero_order": {"start": 1, "neighbours": 2},
    "halving then zero_order": {"start": 1, "neighbours": 2},
    "reno": {"start": 2},
    "dno": {"start": 2},
}
STEPS = {"pandora": 12}  # the least that its looks need


@cache
def wrapped(family: str) -> BestOfNPipeline:
    return BestOfNPipeline(pipe_of(family), "pixels:sharpness")


@pytest.mark.parametrize("search", [*search_names(), *COMPOSED])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_budget_is_kept_the_formula_holds_and_what_is_found_is_made_again(
    family: str, search: str, tmp_path: Path
) -> None:
    steps = STEPS.get(search, 3)
    settings: dict[str, Any] = {**tiny.CALL[family], "height": 32, "width": 32, "steps": steps}
    settings |= {"search": search, "options": OPTIONS.get(search, {}), "seed": 3}
    budget = Cost.at_most(nfe=4 * steps + 1)
    run = wrapped(family).start(PROMPT, budget=budget, **settings)
    assert list(run)
    out = run.result
    spent, planned = out.cost, run.planned
    assert spent.nfe <= min(planned.nfe, 4 * steps + 1)
    assert max(spent.rewards - planned.rewards, spent.decodes - planned.decodes) <= 0
    assert spent.backwards <= planned.backwards
    assert len({candidate.pixels for candidate in out.candidates}) == len(out.candidates)
    out.save(tmp_path / "run")
    ranks = (rank for rank, candidate in enumerate(out.candidates, 1) if candidate.seed > 1 << 32)
    rank = next(ranks, 1)  # the best of those that the search led to, else the winner
    made = out.candidates[rank - 1]
    (again,) = wrapped(family).remake(read_remake(tmp_path / "run" / "result.json", rank))
    assert (again.pixels, again.score, again.seed) == (made.pixels, made.score, made.seed)
    least = wrapped(family)(PROMPT, budget=Cost.at_most(nfe=steps), **settings)
    assert least.candidates
    assert least.cost.nfe <= steps
