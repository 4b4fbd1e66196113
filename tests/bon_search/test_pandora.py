"""The search by reservation values on the Gaussian toy: the same as its replay, at a cost that is counted."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bon_search.calibrate import Previews, measure
from bon_search.critic import PictureCritic
from bon_search.errors import SearchError
from bon_search.forecast import Forecast, fit
from bon_search.ledger import Ledger, MeteredSampler
from bon_search.replay import replay_in_order
from bon_search.search import Critic
from bon_search.searches.pandora import cost, pandora
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.particles import Particles
from tests.bon_search.toy import Brightness

STEPS, N, PROMPTS = 10, 24, 12


class Counting(GaussianMixtureSampler):
    """Counts each evaluation of the denoiser, particle by particle."""

    nfe = 0

    def _step(self, particles: Particles, step: int) -> Particles:
        self.nfe += len(particles)
        return super()._step(particles, step)


def prompt(k: int) -> Counting:
    """Prompts differ in where their two modes lie and how wide they are."""
    return Counting([[k / 4 - 1.0], [k / 4 + 1.0]], [0.5 + k / 30] * 2, [0.7, 0.3], steps=STEPS)


def height(particles: Particles) -> Tensor:
    """The coordinate, of x0 before the end."""
    clean = particles.latents if particles.step == STEPS else particles.x0
    assert clean is not None
    return clean[:, 0]


def measured() -> Previews:
    found = measure([(prompt(k), height) for k in range(PROMPTS)], n=N, shares=(0.3, 0.6), seed=1000)
    return Previews(found.scores, found.shares, STEPS, 0.2)


@pytest.fixture(scope="module")
def forecast() -> Forecast:
    return fit(measured())


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("price", [0.03, 0.004])
def test_the_search_does_what_its_replay_says(forecast: Forecast, width: int, price: float) -> None:
    previews, order = measured(), torch.arange(N)[None].expand(PROMPTS, -1)
    foretold = replay_in_order(forecast, previews, order, price=price, batch_size=width)
    for k in range(PROMPTS):
        sampler = prompt(k)
        looks = list(pandora(sampler, height, n=N, forecast=forecast, price=price, width=width, seed=1000))
        finished = [look.scores.max() for look in looks if look.particles.step == STEPS]
        assert float(max(finished)) == pytest.approx(float(foretold.score[k]), abs=1e-6)
        assert sampler.nfe + 0.2 * sum(len(look.scores) for look in looks) == pytest.approx(float(foretold.cost[k]))
        assert len({stream for look in looks for stream in look.particles.streams}) == int(foretold.started[k])
        assert max(len(look.scores) for look in looks) <= width


def test_the_ledger_and_a_counting_denoiser_agree_below_the_bound(forecast: Forecast) -> None:
    sampler, ledger = prompt(3), Ledger()
    metered = MeteredSampler(sampler, ledger)
    critic = PictureCritic(metered, Brightness(), "a point", ledger)
    looks = list(pandora(metered, critic, n=6, forecast=forecast, width=2))
    spent, most = ledger.spent, cost(6, STEPS, forecast)
    assert (most.nfe, most.rewards, most.decodes) == (60, 18, 18)
    assert spent.nfe == sampler.nfe <= most.nfe
    assert spent.rewards == spent.decodes == sum(len(look.scores) for look in looks) <= most.rewards


def test_nothing_is_left_out_when_steps_are_free(forecast: Forecast) -> None:
    """At a price of next to nothing every candidate that can still win is finished, so the winner is that of all."""
    sampler = prompt(5)
    *_, _ = looks = list(pandora(sampler, height, n=N, forecast=forecast, price=1e-9, seed=7))
    everyone = height(prompt(5).advance(prompt(5).init(range(7, 7 + N)), to=STEPS))
    assert max(float(look.scores.max()) for look in looks) == pytest.approx(float(everyone.max()))


def test_candidates_stay_what_they_are_and_the_file_will_do(forecast: Forecast, tmp_path: Path) -> None:
    forecast.save(tmp_path / "forecast.json")
    looks = list(pandora(prompt(2), height, n=8, forecast=tmp_path / "forecast.json", seed=40))
    for look in looks:
        alone = prompt(2).advance(prompt(2).init(look.particles.streams), to=look.particles.step)
        torch.testing.assert_close(look.particles.latents, alone.latents)
    assert looks[-1].particles.step == STEPS


class Ranking:
    """A critic that only ranks."""

    absolute = False

    def __call__(self, particles: Particles) -> Tensor:
        return height(particles)


def broken(particles: Particles) -> Tensor:
    return height(particles) * math.nan


def test_what_cannot_be_searched_is_refused(forecast: Forecast) -> None:
    def start(critic: Critic = height, steps: int = STEPS, **options: object) -> None:
        sampler = GaussianMixtureSampler([[0.0]], [1.0], [1.0], steps=steps)
        list(pandora(sampler, critic, **({"n": 4, "forecast": forecast} | options)))  # type: ignore[arg-type]

    for price in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(SearchError, match="price"):
            start(price=price)
    with pytest.raises(SearchError, match="width"):
        start(width=0)
    with pytest.raises(SearchError, match="only ranks"):
        start(Ranking())
    with pytest.raises(SearchError, match="no candidate"):
        start(n=0)
    with pytest.raises(SearchError, match="not distinct"):
        start(steps=2)
    with pytest.raises(SearchError, match="seed 0 has the score NaN"):
        start(broken)
