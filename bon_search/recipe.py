"""Read a run back: from result.json to the recipe of any of its candidates."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from bon_search.errors import SearchError
from bon_search.ledger import Cost
from bon_search.plan import Plan
from bon_search.result import Recipe
from bon_search.table import MOST, load_search

if TYPE_CHECKING:
    from pathlib import Path

    from bon_search.result import SearchResult

OWN = frozenset(
    {"n", "seed", "search", "options", "budget", "endless", "references"}
)  # a candidate remade alone has its own


@dataclass(frozen=True)
class Remake:
    """One candidate of an earlier run, to be made again alone.

    Attributes:
        recipe: Of the run.
        rank: Its rank there, 1 = best.
        seed: Its own seed.
        pixels: SHA-256 of its pixels as they were.
        nfe: What the run spent.
        handovers: What it had spent when each of its searches but the last ended.
    """

    recipe: Recipe
    rank: int
    seed: int
    pixels: str
    nfe: float
    handovers: tuple[float, ...] = ()

    def plan(self, steps: int) -> Plan:
        """What to do: make the candidate alone if it comes from its seed, else repeat the search that led to it.

        Raises:
            SearchError: There is no such search here.
        """
        recipe = self.recipe
        if recipe.seed <= self.seed < recipe.seed + MOST:  # whatever a search derives has a seed of 63 bits
            return Plan(load_search("best_of_n"), 1, self.seed, {}, steps, Cost.at_most())
        budget, stops = Cost.at_most(**recipe.budget), tuple[float, ...]()
        if budget.seconds < math.inf:  # time cannot be repeated, but what it paid for can
            budget, stops = replace(budget, seconds=math.inf, nfe=self.nfe), self.handovers
        entry = load_search(recipe.search)
        return Plan(entry, recipe.n, recipe.seed, recipe.options, steps, budget, recipe.endless, stops)

    def verdict(self, result: SearchResult) -> str:
        """One sentence: how the new picture relates to the old one."""
        if result.best.pixels == self.pixels:
            return f"candidate {self.rank} made again: the same picture, bit for bit."
        then, now = asdict(self.recipe), asdict(result.recipe)
        changed = [name for name in then if name not in OWN and then[name] != now[name]]
        if not changed:
            return f"candidate {self.rank} made again, but not to the bit: this machine rounds in another way."
        told = ", ".join(f"{name} {_short(then[name])} to {_short(now[name])}" for name in changed)
        return f"candidate {self.rank} made again; what changed since: {told}."


def _short(value: object) -> str:
    return str(value)[:12] if isinstance(value, str | int | float) else "…"


def read_remake(path: Path, rank: int) -> Remake:
    """Candidate number `rank` (1 = best) of a result.json.

    Raises:
        SearchError: The file cannot be read, is no result of a run, or has no such candidate.
    """
    data = _read(path)
    try:
        rows = {int(row["rank"]): row for row in data["candidates"]}
        known = {field.name for field in fields(Recipe)}
        recipe = Recipe(**{key: value for key, value in data["recipe"].items() if key in known})
        nfe = float(data["cost"]["nfe"])
        handovers = tuple(float(spent) for spent in data["cost"].get("handovers", ()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SearchError(
            f"{path} is not a result.json of generate-best ({error!r}); give the file of a run."
        ) from error
    if rank not in rows:
        raise SearchError(f"{path} has no candidate {rank}; its candidates are 1 (best) to {len(rows)}.")
    return Remake(recipe, rank, int(rows[rank]["seed"]), str(rows[rank]["pixels"]), nfe, handovers)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SearchError(f"{path} cannot be read ({error.strerror}); give the result.json of a run.") from error
    except ValueError as error:
        raise SearchError(f"{path} is not JSON ({error}); give the result.json of a run.") from error
    if not isinstance(data, dict):
        raise SearchError(f"{path} is not a result.json of generate-best; give the file of a run.")
    return data
