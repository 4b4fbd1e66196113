"""Every search through the same door: metered, drained by `Run`, at the cost its formula says."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bon_search.critic import PictureCritic
from bon_search.ledger import Cost, Ledger, MeteredSampler
from bon_search.run import Run
from bon_search.search import Scored
from bon_search.searches import beam, bfs, code, dfs, halving, presets, rbf, smc, svdd
from bon_search.searches.stopping import best_of_n_until
from pipelines.particles import Particles
from tests.bon_search.tilts import STEPS, mixture
from tests.bon_search.toy import Brightness, recipe

N = 12
EXACT = type(mixture())


class Counting(EXACT):  # type: ignore[misc, valid-type]
    """Counts each evaluation of the denoiser, particle by particle."""

    nfe = 0

    def _step(self, particles: Particles, step: int) -> Particles:
        self.nfe += len(particles)
        moved: Particles = super()._step(particles, step)
        return moved


SEARCHES: dict[str, tuple[Callable[..., Iterator[Scored]], dict[str, Any], Cost]] = {
    "smc": (smc.smc, {"strength": 2.0, "looks": 3}, smc.cost(N, STEPS, 3)),
    "fk": (presets.fk, {}, presets.fk_cost(N, STEPS)),
    "das": (presets.das, {}, presets.das_cost(N, STEPS)),
    "bfs": (bfs.bfs, {}, bfs.cost(N, STEPS)),
    "bfs without going back": (bfs.bfs, {"looks": [3], "back": 0.0}, bfs.cost(N, STEPS, [3], 0.0)),
    "dfs": (dfs.dfs, {}, dfs.cost(N, STEPS)),
    "beam": (beam.beam, {}, beam.cost(N, STEPS)),
    "code": (code.code, {"every": 3}, code.cost(N, STEPS, 3)),
    "svdd": (svdd.svdd, {"start": 0.25}, svdd.cost(N, STEPS, 0.25)),
    "rbf": (rbf.rbf, {}, rbf.cost(N, STEPS)),
    "halving": (halving.halving, {}, halving.cost(N, STEPS)),
    "until": (best_of_n_until, {}, Cost(nfe=N * STEPS, rewards=N, decodes=N)),
}
AT_MOST = ("bfs", "dfs", "rbf")  # what they spend depends on the scores


def start(name: str, budget: Cost | None = None) -> tuple[Run, Ledger, Counting]:
    search, settings, _ = SEARCHES[name]
    law = mixture().law
    sampler = Counting(law.means, law.scales, law.log_weights.exp(), STEPS, exact=True)
    ledger = Ledger(budget)
    metered = MeteredSampler(sampler, ledger)
    critic = PictureCritic(metered, Brightness(), "a point", ledger)
    return Run(search(metered, critic, n=N, **settings), critic, ledger, recipe(N, STEPS)), ledger, sampler


@pytest.mark.parametrize("name", SEARCHES)
def test_the_formula_the_ledger_and_a_counting_denoiser_agree(name: str) -> None:
    run, ledger, sampler = start(name)
    finished = list(run)
    spent, planned = ledger.spent, SEARCHES[name][2]
    shares = [spent.nfe / planned.nfe, spent.rewards / planned.rewards, spent.decodes / planned.decodes]
    assert shares == [1, 1, 1] or (name in AT_MOST and max(shares) <= 1 and shares[0] > 0.8)
    assert sampler.nfe == spent.nfe
    assert run.result.best.score == max(candidate.score for candidate in finished)
    assert len({candidate.seed for candidate in finished}) == len(finished)  # copies have streams of their own


@pytest.mark.parametrize("name", SEARCHES)
def test_a_budget_is_never_overshot(name: str) -> None:
    for nfe in range(0, N * STEPS, 17):
        run, ledger, sampler = start(name, Cost.at_most(nfe=nfe))
        list(run)
        assert sampler.nfe == ledger.spent.nfe <= nfe


@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_budget_of_time_is_kept_and_finishes_somebody(
    name: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which an NFE takes a hundredth of a second, so that forecasts are right once one is known."""
    run, ledger, sampler = start(name, Cost.at_most(seconds=seconds))
    monkeypatch.setattr("bon_search.ledger.time.perf_counter", lambda: ledger._start + 0.01 * sampler.nfe)
    finished = list(run)
    assert 0.01 * sampler.nfe <= max(seconds, 0.01 * N)  # the first step is of all
    assert finished or seconds < 0.01 * (N + STEPS)
    assert bool(finished) == bool(run.result.candidates)
