"""Pruned best-of-N: who goes on, what it costs, and that it finds the winner for less."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bon_search.critic import PictureCritic
from bon_search.errors import SearchError
from bon_search.ledger import Cost, Ledger, MeteredSampler
from bon_search.pruning import DEFAULT, Cut, Look, Schedule
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.halving import best, cost, halving
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.particles import Particles
from tests.bon_search.toy import Brightness

schedules = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.35, 0.5, 0.6, 0.85]), st.sampled_from([0.2, 0.4, 0.5, 0.75, 1.0])),
    max_size=4,
    unique_by=lambda cut: cut[0],
).map(lambda cuts: Schedule(tuple(Cut(at, keep) for at, keep in sorted(cuts))))


def modes(steps: int = 20) -> GaussianMixtureSampler:
    return GaussianMixtureSampler([[-2.0, 0.0], [2.0, 1.0]], [0.6, 0.6], [0.5, 0.5], steps=steps)


class Counting(GaussianMixtureSampler):
    """Counts each evaluation of the denoiser, particle by particle."""

    nfe = 0

    def _step(self, particles: Particles, step: int) -> Particles:
        self.nfe += len(particles)
        return super()._step(particles, step)


def last_scores(particles: Particles) -> Tensor:
    """The first coordinate, of x0 before the end."""
    clean = particles.latents if particles.step == 20 else particles.x0
    assert clean is not None
    return clean[:, 0]


def test_looks_of_the_default() -> None:
    assert DEFAULT.looks(16, 20) == (Look(7, 16, 8), Look(12, 8, 4))
    assert DEFAULT.cost(16, 20) == Cost(nfe=16 * 7 + 8 * 5 + 4 * 8, rewards=28, decodes=28)
    assert DEFAULT.looks(1, 20) == ()
    assert DEFAULT.looks(5, 20) == (Look(7, 5, 3), Look(12, 3, 2))
    assert DEFAULT.looks(8, 2) == (Look(1, 8, 2),)  # both cuts fall on the only look there is
    assert DEFAULT.looks(8, 1) == ()


@given(schedules, st.integers(1, 12), st.integers(1, 8))
def test_cost_is_what_the_ledger_and_a_counting_denoiser_saw(schedule: Schedule, n: int, steps: int) -> None:
    sampler = Counting([[0.0], [1.0]], [1.0, 1.0], [0.5, 0.5], steps=steps)
    ledger = Ledger()
    metered = MeteredSampler(sampler, ledger)
    critic = PictureCritic(metered, Brightness(), "a point", ledger)
    *_, end = halving(metered, critic, n=n, schedule=schedule)
    spent, planned = ledger.spent, cost(n, steps, schedule)
    assert (spent.nfe, spent.rewards, spent.decodes) == (planned.nfe, planned.rewards, planned.decodes)
    assert sampler.nfe == spent.nfe
    assert end.particles.step == steps


def test_the_best_previews_go_on_and_candidates_stay_what_they_are() -> None:
    first, second, end = halving(modes(), last_scores, n=12, seed=40)
    assert [len(look.particles) for look in (first, second, end)] == [12, 6, 3]
    assert [look.particles.step for look in (first, second, end)] == [7, 12, 20]
    kept = {
        s for s, _ in sorted(zip(first.particles.streams, first.scores.tolist(), strict=True), key=lambda x: -x[1])[:6]
    }
    assert set(second.particles.streams) == kept
    assert second.particles.streams == tuple(sorted(second.particles.streams))
    alone = next(best_of_n(modes(), last_scores, n=12, seed=40))
    row = [alone.particles.streams.index(stream) for stream in end.particles.streams]
    torch.testing.assert_close(end.particles.latents, alone.particles.latents[row])


def test_the_winner_of_best_of_n_for_sixty_percent_of_its_cost() -> None:
    """On the toy previews rank almost as finished points do, so that pruning seldom loses the winner."""
    found, spent = 0, DEFAULT.cost(16, 20).nfe / (16 * 20)
    for k in range(30):
        whole = next(best_of_n(modes(), last_scores, n=16, seed=100 * k))
        *_, end = halving(modes(), last_scores, n=16, seed=100 * k)
        found += float(end.scores.max()) == pytest.approx(float(whole.scores.max()))
    assert spent == pytest.approx(0.575)
    assert found >= 27


def test_no_cut_is_best_of_n() -> None:
    (only,) = halving(modes(), last_scores, n=5, schedule=Schedule(), seed=3)
    whole = next(best_of_n(modes(), last_scores, n=5, seed=3))
    assert only.particles.latents.equal(whole.particles.latents)


def test_ties_go_to_the_lowest_place_and_nan_to_nobody() -> None:
    assert best(torch.tensor([1.0, 3.0, 3.0, -math.inf, 3.0]), 2) == [1, 2]
    with pytest.raises(SearchError, match="NaN"):
        best(torch.tensor([1.0, math.nan]), 1)


@given(schedules, st.integers(2, 30), st.integers(10, 2000))
def test_starts_fill_a_budget_and_never_overshoot_it(schedule: Schedule, steps: int, nfe: int) -> None:
    budget = Cost.at_most(nfe=nfe)
    if schedule.cost(1, steps).nfe > nfe:
        with pytest.raises(SearchError, match="allow more"):
            schedule.starts(budget, steps)
        return
    n = schedule.starts(budget, steps)
    assert schedule.cost(n, steps).nfe <= nfe < schedule.cost(n + 1, steps).nfe
    assert schedule.starts(Cost.at_most(rewards=1), steps) == 1


def test_a_budget_of_time_alone_says_nothing_about_starts() -> None:
    with pytest.raises(SearchError, match="how many"):
        DEFAULT.starts(Cost.at_most(seconds=3), 20)


def test_schedule_files(tmp_path: Path) -> None:
    path = tmp_path / "flux.json"
    DEFAULT.save(path, ratio=0.7)
    assert Schedule.load(path) == DEFAULT
    assert json.loads(path.read_text())["ratio"] == 0.7
    *_, end = halving(modes(), last_scores, n=8, schedule=path)
    assert len(end.particles) == 2


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("[1]", "is JSON such as"),
        ("{", "is JSON such as"),
        ('{"cuts": [{"at": 0.5}]}', "is JSON such as"),
        ('{"cuts": [{"at": 1.5, "keep": 0.5}]}', "between 0 and 1"),
        ('{"cuts": [{"at": 0.5, "keep": 0.5}, {"at": 0.4, "keep": 0.5}]}', "put them in order"),
    ],
)
def test_files_that_hold_no_schedule_are_refused(tmp_path: Path, text: str, cure: str) -> None:
    path = tmp_path / "schedule.json"
    path.write_text(text)
    with pytest.raises(SearchError, match=cure):
        halving(modes(), last_scores, n=4, schedule=path)
    with pytest.raises(SearchError, match="cannot be read"):
        halving(modes(), last_scores, n=4, schedule=tmp_path / "none.json")


def test_a_schedule_that_comes_with_the_package_is_known_by_name() -> None:
    known = Schedule.load("embedded_llava_reward")
    assert known.cuts
    assert known.cost(21, 20).nfe < 0.6 * 16 * 20  # as its calibration says, looks not counted
    with pytest.raises(SearchError, match="embedded_llava_reward"):
        Schedule.load("embedded_lava_reward")
