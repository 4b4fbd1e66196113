"""Beam search: against a simulation of its increments, and none but the best of all children go on."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bon_search.errors import SearchError
from bon_search.searches.beam import beam, cost
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.code import code
from tests.bon_search.branching_contract import (
    STEPS,
    check_cost,
    check_family,
    check_mean,
    check_repeats,
    exact_normal,
    gain,
    runs_of,
    three_modes,
    value,
)
from tests.bon_search.search_contract import FAMILIES
from tests.bon_search.tilts import CURVED


def simulated(n: int, width: int, looks: tuple[int, ...], runs: int) -> Tensor:
    """The best of beams over the known increments alone, without sampler or search; (runs,)."""
    generator = torch.Generator().manual_seed(0)
    known = torch.zeros(runs, n, dtype=torch.float64)
    state = 0  # whose estimate `known` is
    for look in (*looks, STEPS):
        seen = look - 1 if look < STEPS else look
        known = known + gain(seen, state) * torch.randn(runs, n, generator=generator, dtype=torch.float64)
        if look == STEPS:
            return known.max(dim=1).values
        hidden = gain(look, seen) * torch.randn(runs, n, generator=generator, dtype=torch.float64)
        kept = known.topk(width, dim=1).indices.repeat_interleave(n // width, dim=1)
        known, state = (known + hidden).gather(1, kept), look
    raise AssertionError


@pytest.mark.parametrize("width", [2, 4])
def test_its_gain_is_that_of_the_simulated_increments(width: int) -> None:
    truth = simulated(8, width, (2, 4, 6), 100_000)
    assert float(truth.std()) / math.sqrt(len(truth)) < 0.003
    check_mean(runs_of(beam, value, n=8, runs=120, width=width, start=0.25), float(truth.mean()))


def test_the_best_of_all_children_go_on_whoever_their_parents_are() -> None:
    """Independent chains would keep the best of each; ties go to the lowest place."""
    first, second, *_ = beam(exact_normal(), lambda particles: torch.tensor([1.0, 5, 5, 0, 5, 2]), n=6, width=2)
    kept = [first.particles.streams[place] for place in (1, 2)]
    assert (second.particles.streams[0], second.particles.streams[3]) == tuple(kept)
    assert len(set(second.particles.streams)) == 6


def test_width_1_is_code() -> None:
    for ours, theirs in zip(beam(exact_normal(), value, n=5, width=1), code(exact_normal(), value, n=5), strict=True):
        assert ours.particles.latents.equal(theirs.particles.latents)


def test_it_beats_best_of_n_at_equal_nfe() -> None:
    sampler = three_modes(eta=1.0)
    ours, plain = (runs_of(search, CURVED.critic(20), 8, 24, sampler) for search in (beam, best_of_n))
    assert (ours - plain).mean() > 0.5


@pytest.mark.parametrize(
    ("n", "steps", "options"), [(1, 1, {}), (3, 2, {}), (5, 7, {"every": 3, "width": 3}), (6, 20, {"start": 0.5})]
)
def test_its_cost_is_that_of_n_candidates_and_the_looks(n: int, steps: int, options: dict[str, Any]) -> None:
    costs = {name: option for name, option in options.items() if name != "width"}
    left = check_cost(lambda *a, **k: beam(*a, **k, **options), lambda n, steps: cost(n, steps, **costs), n, steps)
    assert (left.nfe, left.rewards, left.decodes) == (0, 0, 0)
    assert cost(n, steps, **costs).nfe == n * steps


def test_the_same_seed_is_the_same_search() -> None:
    check_repeats(lambda seed: beam(exact_normal(), value, n=5, seed=seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_pipelines(family: str) -> None:
    check_family(family, beam, n=4)


@pytest.mark.parametrize(
    ("options", "cure"), [({"n": 0}, "at least 1"), ({"every": 1}, "use svdd"), ({"width": 0}, "at least 1")]
)
def test_what_cannot_be_is_refused_before_anything_is_spent(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        beam(exact_normal(), value, **({"n": 4} | options))


def test_a_deterministic_solver_is_refused_with_the_cure() -> None:
    with pytest.raises(SearchError, match="eta above 0"):
        beam(three_modes(), value, n=4)
