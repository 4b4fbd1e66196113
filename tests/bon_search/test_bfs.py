"""BFS: the tilted law with particles that go back, no particle lost to rounding, and deterministic solvers."""

import itertools
from typing import Any

import pytest
import torch

from bon_search.errors import SearchError
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.bfs import bfs, cost
from bon_search.searches.smc import SmcScored, smc
from tests.bon_search.branching_contract import (
    STEPS,
    check_cost,
    check_family,
    check_repeats,
    exact_normal,
    ranking,
    runs_of,
    three_modes,
    value,
)
from tests.bon_search.search_contract import FAMILIES, Recording
from tests.bon_search.tilts import CURVED, LINEAR, LOOKS, deviations, last, mixture


@pytest.mark.parametrize("back", [0.125, 0.5])
def test_going_back_leaves_the_tilted_law_and_its_evidence(back: float) -> None:
    """If copies alone went back, or weights forgot what came before, these would be off."""
    sampler, tilt = mixture(), LINEAR.tilt(mixture(), 0.6)

    def run(seed: int) -> SmcScored:
        settings = {"potential": "maximum", "tempering": "increasing", "temperature": 0.6, "looks": LOOKS}
        looks = list(smc(sampler, LINEAR.critic(), n=192, seed=seed, threshold=0.9, back=back, **settings))  # type: ignore[arg-type]
        assert any(look.ancestors is not None for look in looks)
        return looks[-1]

    errors = deviations(run, tilt)
    assert (errors.abs() < 6).all(), errors


def test_no_particle_is_lost_and_no_place_is_favoured() -> None:
    """The reference rounds n·w and cuts to n by index: here the last would lose children that the first keep."""
    n, resamplings = 24, 0
    for seed in range(0, 2000, 100):
        looks = list(bfs(exact_normal(), value, n=n, looks=[2, 3, 4, 5, 6], seed=seed))
        for before, after in itertools.pairwise(looks):
            assert len(after.particles) == n
            assert before.log_weights is not None
            assert after.ancestors is not None
            children = torch.bincount(after.ancestors, minlength=n)
            assert ((children - n * before.log_weights.softmax(0)).abs() < 1).all()
            resamplings += 1
    assert resamplings == 100


def test_copies_part_on_a_deterministic_solver() -> None:
    """In the reference they stay equal to the end."""
    looks = list(bfs(three_modes(), LINEAR.critic(20), n=12))
    assert looks[1].ancestors is not None
    assert len(set(looks[1].ancestors.tolist())) < 12
    assert all(len(look.particles.latents.unique(dim=0)) == 12 for look in looks)


def test_temperatures_rise_with_the_steps() -> None:
    first, *_, end = bfs(mixture(), LINEAR.critic(), n=24)
    assert first.temperature * (1.008**25 - 1) == pytest.approx(end.temperature)
    assert end.temperature == pytest.approx(float(first.scores.std()) / 5)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_it_beats_best_of_n_at_equal_nfe(eta: float) -> None:
    """14 particles of which some go back cost at most 16.8 candidates' NFE: best-of-17 is given no less."""
    sampler, critic = three_modes(eta=eta), LINEAR.critic(20)
    assert cost(14, 20).nfe <= 17 * 20
    gains = runs_of(bfs, critic, 14, 24, sampler) - runs_of(best_of_n, critic, 17, 24, sampler)
    assert gains.mean() > 0.3


def test_its_cost_is_what_it_spends_if_every_look_resamples() -> None:
    for n, steps, options in ((1, 1, {}), (5, 4, {}), (6, 20, {"back": 0.1}), (6, 20, {"back": 0.5, "looks": [2, 9]})):
        left = check_cost(bfs, cost, n, steps, **options)
        assert (left.nfe, left.rewards, left.decodes) == (0, 0, 0)


def test_a_look_that_does_not_resample_does_not_go_back() -> None:
    sampler = Recording([[0.0]], [1.0], [1.0], STEPS)
    list(bfs(sampler, value, n=6, threshold=0.0))
    assert sampler.nfe == 6 * STEPS


def test_without_going_back_it_is_the_published_method() -> None:
    ours = last(bfs(mixture(), CURVED.critic(), n=16, back=0.0))
    theirs = last(
        smc(mixture(), CURVED.critic(), n=16, strength=5.0, tempering="increasing", potential="maximum", threshold=1.0)
    )
    assert ours.particles.latents.equal(theirs.particles.latents)


def test_the_same_seed_is_the_same_search() -> None:
    check_repeats(lambda seed: bfs(exact_normal(), value, n=6, seed=seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_pipelines_with_their_own_deterministic_solvers(family: str) -> None:
    check_family(family, bfs, n=4, eta=0.0)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"n": 0}, "at least 1"),
        ({"back": 1.5}, "out of range"),
        ({"strength": -1.0}, "at least 0"),
        ({"threshold": 2.0}, "from 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_spent(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        bfs(exact_normal(), value, **({"n": 4} | options))


def test_what_it_needs_of_solver_and_reward() -> None:
    with pytest.raises(SearchError, match="set back above 0"):
        bfs(three_modes(), value, n=4, back=0.0)
    with pytest.raises(SearchError, match="absolute = False"):
        bfs(exact_normal(), ranking(value), n=4)
