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
OPTIONS: dict[str, dict[str, Any]] = {"draft": {"draft_steps": 1}, "pandora": {"forecast": "embedded_llava_reward"}}
STEPS = {"pandora": 12}  # the least that its looks need


@cache
def wrapped(family: str) -> BestOfNPipeline:
    return BestOfNPipeline(pipe_of(family), "pixels:sharpness")


@pytest.mark.parametrize("search", [*search_names(), *COMPOSED])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_budget_is_kept_the_formula_holds_and_the_winner_is_made_again(
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
    (again,) = wrapped(family).remake(read_remake(tmp_path / "run" / "result.json", 1))
    assert (again.pixels, again.score, again.seed) == (out.best.pixels, out.best.score, out.best.seed)
    least = wrapped(family)(PROMPT, budget=Cost.at_most(nfe=steps), **settings)
    assert least.candidates
    assert least.cost.nfe <= steps
