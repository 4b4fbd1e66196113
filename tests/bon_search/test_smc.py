"""Steering against tilted laws in closed form, for every potential, tempering and resampler.

Eight runs give an estimate and its own standard error. The t statistic of 7 degrees of freedom leaves ±6 with a chance
of 5 in 10,000, and the seeds are fixed: a failure means a change of the mathematics, not bad luck.
"""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from bon_search.errors import SearchError
from bon_search.ledger import Ledger, MeteredSampler
from bon_search.potentials import POTENTIALS, TEMPERINGS
from bon_search.resampling import RESAMPLERS
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.smc import SmcScored, cost, smc
from pipelines.particles import Particles
from tests.bon_search.tilts import CURVED, LINEAR, LOOKS, STEPS, Quadratic, deviations, estimate, last, mixture, truth

EXACT = mixture()
LIMIT = 6.0


@pytest.mark.parametrize(("potential", "tempering"), list(product(POTENTIALS, TEMPERINGS)))
def test_the_tilted_law_and_its_evidence_with_every_potential_and_tempering(potential: str, tempering: str) -> None:
    """At these thresholds the adaptive strength starts below the full one, and every run resamples."""
    reward, temperature = (LINEAR, 0.6) if tempering == "increasing" else (CURVED, 0.4)
    tilt = reward.tilt(EXACT, temperature)
    threshold = 0.95 if potential == "current" else 0.7  # a look of "current" presses with its share only
    first_temperatures = []

    def run(seed: int) -> SmcScored:
        settings = {"looks": LOOKS, "temperature": temperature, "potential": potential, "tempering": tempering}
        first, *looks = smc(EXACT, reward.critic(), n=256, seed=seed, threshold=threshold, **settings)  # type: ignore[arg-type]
        assert any(look.ancestors is not None for look in looks)
        first_temperatures.append(first.temperature)
        return looks[-1]

    errors = deviations(run, tilt)
    assert (errors.abs() < LIMIT).all(), errors
    assert (min(first_temperatures) > 1.05 * temperature) == (tempering != "constant")


@pytest.mark.parametrize("resampler", [name for name in RESAMPLERS if name != "single"])
@pytest.mark.parametrize("threshold", [0.3, 1.0])
def test_the_tilted_law_with_every_resampler_whether_looks_resample_or_not(resampler: str, threshold: float) -> None:
    tilt = LINEAR.tilt(EXACT, 0.8)

    def run(seed: int) -> SmcScored:
        settings = {"resampler": resampler, "threshold": threshold, "temperature": 0.8, "looks": LOOKS}
        return last(smc(EXACT, LINEAR.critic(), n=256, seed=seed, **settings))  # type: ignore[arg-type]

    errors = deviations(run, tilt)
    assert (errors.abs() < LIMIT).all(), errors


def test_weights_are_carried_over_looks_that_do_not_resample() -> None:
    """Without resampling the product of all potentials is exp(r / T) to the last digit, whatever the potential."""
    whole = last(best_of_n(EXACT, LINEAR.critic(), n=32))  # type: ignore[arg-type]
    for potential, tempering in product(POTENTIALS, ["constant", "increasing"]):
        looks = smc(
            EXACT,
            LINEAR.critic(),
            n=32,
            looks=LOOKS,
            temperature=0.3,
            potential=potential,
            tempering=tempering,
            threshold=0,
        )
        *previews, end = looks
        assert end.log_weights is not None
        torch.testing.assert_close(end.log_weights, whole.scores / 0.3)
        assert end.scores.equal(whole.scores)
        assert end.log_evidence == pytest.approx(float((whole.scores / 0.3).logsumexp(0)) - math.log(32))
        assert len({round(look.ess, 6) for look in previews}) == len(LOOKS)  # each look changed the weights


def test_more_particles_bring_the_error_down_as_one_over_their_root() -> None:
    tilt = CURVED.tilt(EXACT, 0.5)

    def error(n: int) -> Tensor:
        runs = [last(smc(EXACT, CURVED.critic(), n=n, looks=LOOKS, temperature=0.5, seed=9999 * k)) for k in range(6)]
        return torch.stack([estimate(run, tilt) - truth(tilt) for run in runs]).square().mean(0).sqrt()

    ratio = (error(48) / error(768)).log().mean().exp()
    assert 2.5 < ratio < 6.5  # 4 in theory


def test_the_papers_full_potentials_press_too_hard() -> None:
    """A potential of one's own: the full exp(λ·max) at each look, as Singhal et al. have it, divided out at the end."""
    tilt, looks = LINEAR.tilt(EXACT, 0.5), range(2, 8)

    def papers(scores: Tensor, strengths: Tensor, planned: int) -> Tensor:
        return (strengths[:, None] * scores.cummax(dim=0).values).sum(dim=0)

    def run(seed: int, potential: object) -> Tensor:
        steered = smc(EXACT, LINEAR.critic(), n=256, looks=looks, temperature=0.5, potential=potential, seed=seed)  # type: ignore[arg-type]
        return estimate(last(steered), tilt) - truth(tilt)

    theirs, ours = (torch.stack([run(9999 * k, p) for k in range(6)]) for p in (papers, "maximum"))
    assert theirs[:, :2].square().mean() > 2 * ours[:, :2].square().mean()


def test_a_stochastic_ddpm_run_is_weighted_by_its_own_final_law() -> None:
    """With eta = 1 the law is not the mixture, but SMC and plain importance weights must still agree on it."""
    sampler = mixture(exact=False, eta=1.0)

    def evidence(threshold: float) -> Tensor:
        settings = {"n": 128, "looks": LOOKS, "temperature": 0.5, "threshold": threshold}
        runs = [smc(sampler, LINEAR.critic(), seed=9999 * k, **settings) for k in range(10)]  # type: ignore[arg-type]
        return torch.tensor([last(run).log_evidence for run in runs]).exp()

    steered, plain = evidence(0.9), evidence(0.0)
    assert (steered.mean() - plain.mean()).abs() < 5 * (steered.var() / 10 + plain.var() / 10).sqrt()
    assert steered.std() < 0.9 * plain.std()  # what the looks are for


def test_a_deterministic_sampler_is_weighted_and_never_resampled() -> None:
    sampler = mixture(exact=False)
    *previews, end = smc(sampler, LINEAR.critic(), n=16, looks=LOOKS, temperature=0.1)
    assert [look.ancestors for look in [*previews, end]] == [None] * 4
    assert len(end.particles) == 16


def test_copies_that_cannot_part_are_finished_once_with_the_sum_of_their_weights() -> None:
    """The last DDPM step adds no noise, so copies made just before it end equal."""
    sampler = mixture(exact=False, eta=1.0)
    ledger = Ledger()
    metered = MeteredSampler(sampler, ledger)
    *_, end = smc(metered, LINEAR.critic(), n=64, looks=[STEPS - 1], temperature=0.3, threshold=1.0)
    assert len(end.particles.latents.unique(dim=0)) == len(end.particles) < 64
    assert end.ancestors is not None
    assert end.ancestors.tolist() == sorted(set(end.ancestors.tolist()))
    same = last(smc(sampler, LINEAR.critic(), n=64, looks=[STEPS - 1], temperature=0.3, threshold=0.0))
    assert end.log_evidence == pytest.approx(same.log_evidence, abs=0.2)
    assert ledger.spent.nfe == cost(64, STEPS, [STEPS - 1]).nfe == 64 * STEPS


def test_strength_is_in_deviations_of_the_first_look() -> None:
    first, *_, end = smc(EXACT, LINEAR.critic(), n=64, looks=LOOKS, strength=2.0)
    assert first.temperature == pytest.approx(float(first.scores.std()) / 2)
    assert end.temperature == first.temperature
    given = last(smc(EXACT, LINEAR.critic(), n=64, looks=LOOKS, strength=2.0, deviation=first.temperature * 2))
    assert end.particles.latents.equal(given.particles.latents)
    louder = Quadratic((600.0, 400.0))
    assert last(smc(EXACT, louder.critic(), n=64, looks=LOOKS, strength=2.0)).particles.latents.equal(
        end.particles.latents
    )


def test_scores_that_do_not_differ_do_not_steer() -> None:
    def verdict(particles: Particles) -> Tensor:
        good = particles.step == STEPS
        return (particles.latents[:, 0] > 2).double() if good else torch.zeros(len(particles))

    *previews, end = smc(EXACT, verdict, n=64, looks=LOOKS, tempering="adaptive")
    assert [look.temperature for look in previews] == [math.inf] * 3
    assert [look.ess for look in previews] == pytest.approx([64] * 3)
    assert end.temperature == pytest.approx(float(end.scores.std()) / 3)


def test_no_tilt_is_no_steering() -> None:
    for settings in ({"temperature": math.inf}, {"strength": 0.0}):
        *previews, end = smc(EXACT, LINEAR.critic(), n=16, looks=LOOKS, **settings)  # type: ignore[arg-type]
        assert end.log_weights is not None
        assert end.log_weights.tolist() == [0.0] * 16
        assert {look.temperature for look in [*previews, end]} == {math.inf}
        assert end.log_evidence == pytest.approx(0, abs=1e-12)


def test_sampling_mode_draws_from_the_tilted_law() -> None:
    tilt = LINEAR.tilt(EXACT, 1.0)
    points = []
    for k in range(100):
        *previews, drawn = smc(EXACT, LINEAR.critic(), n=24, looks=[4], temperature=1.0, mode="sampling", seed=100 * k)
        assert [len(look.particles) for look in [*previews, drawn]] == [24, 1]
        points.append(drawn.particles.latents[0])
    found = torch.stack(points)
    deviation = tilt.law.covariance.diagonal().sqrt()
    assert ((found.mean(0) - tilt.law.mean).abs() < 4.5 * deviation / 100**0.5).all()
    assert ((tilt.law.mean - EXACT.law.mean).abs() > 8 * deviation / 100**0.5).any()  # the plain law would not pass


def test_the_same_seed_is_the_same_run() -> None:
    runs = [last(smc(EXACT, LINEAR.critic(), n=32, looks=LOOKS, temperature=0.2, seed=seed)) for seed in (5, 5, 6)]
    assert runs[0].particles.latents.equal(runs[1].particles.latents)
    assert not runs[0].particles.latents.equal(runs[2].particles.latents)


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"potential": "maximal"}, "did you mean 'maximum'"),
        ({"resampler": "best"}, "choose one of multinomial"),
        ({"tempering": "hot"}, "unknown"),
        ({"mode": "best"}, '"search" or "sampling"'),
        ({"threshold": 1.5}, "from 0"),
        ({"tempering": "adaptive", "threshold": 1.0}, "between 0 and 1"),
        ({"temperature": 0.0}, "positive"),
        ({"deviation": math.nan}, "positive"),
        ({"strength": -1.0}, "at least 0"),
        ({"looks": [0]}, "from 1 to 8"),
        ({"looks": [9]}, "from 1 to 8"),
        ({"looks": [1.5]}, "share"),
        ({"looks": -1}, "0 or more"),
        ({"n": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_spent(settings: dict[str, object], cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        smc(EXACT, LINEAR.critic(), **({"n": 4} | settings))  # type: ignore[arg-type]


def test_a_score_that_is_not_finite_is_named() -> None:
    looks = smc(EXACT, lambda particles: particles.latents[:, 0] * math.nan, n=4, looks=[2])
    with pytest.raises(SearchError, match="particle 0 at step 2"):
        next(looks)


def test_a_reward_that_only_ranks_is_refused_with_the_cure() -> None:
    def ranks(particles: Particles) -> Tensor:
        return particles.latents[:, 0]

    ranks.absolute = False  # type: ignore[attr-defined]
    with pytest.raises(SearchError, match=r"Bradley-Terry.*best_of_n"):
        smc(EXACT, ranks, n=4)
