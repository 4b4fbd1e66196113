"""DAS with gradients: the tilt and its evidence in closed form, however it is tempered and resampled."""

from typing import Any

import pytest
import torch

from bon_search.guided import Look, bounded
from bon_search.searches.das_gradient import das_gradient
from bon_search.searches.smc import smc
from tests.bon_search.normal_law import deviations, end_variance, estimated, gaussian, quadratic, tilted

STEPS, RUNS, N, TEMPERATURE = 6, 12, 100, 0.5
SETTINGS: list[dict[str, Any]] = [
    {"tempering": "constant", "threshold": 1.0, "start": 0.0},
    {"tempering": "increasing", "threshold": 0.9},
    {"tempering": "constant", "threshold": 0.5, "batch_size": 33},
]


def found(curvature: float, runs: int = RUNS, **options: Any) -> torch.Tensor:
    """(runs, 4) by independent runs."""
    sampler = gaussian(STEPS)
    critic = quadratic(sampler, curvature)
    return torch.stack(
        [
            estimated(das_gradient(sampler, critic, n=N, temperature=TEMPERATURE, seed=10_000 * run, **options))
            for run in range(runs)
        ]
    )


def target(curvature: float) -> torch.Tensor:
    return tilted(end_variance(gaussian(STEPS)), curvature, TEMPERATURE)


@pytest.mark.parametrize("options", SETTINGS, ids=lambda options: options["tempering"] + str(options["threshold"]))
@pytest.mark.parametrize("curvature", [0.0, 1.0])
def test_the_tilt_and_its_evidence(curvature: float, options: dict[str, Any]) -> None:
    """Mean, variance and log Z, to four standard errors of some per cent."""
    runs = found(curvature, **options)
    assert deviations(runs, target(curvature)).abs().max() < 4
    assert (runs.std(0) / RUNS**0.5).max() < 0.08


def test_arrays_that_stay_behind_when_particles_are_resampled_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published code's fault: particles with the gradients and scores of others."""

    def only_particles(self: Look, ancestors: torch.Tensor) -> Look:
        return Look(self.particles.fork(ancestors), self.scores, self.slopes, self.scale)

    options = SETTINGS[0]
    with monkeypatch.context() as patched:
        patched.setattr(Look, "fork", only_particles)
        assert deviations(found(1.0, **options), target(1.0)).abs().max() > 6


def test_copies_take_their_step_with_noise_of_their_own() -> None:
    """The first keeps the noise it had, to the bit; all are draws of the step's law around their ancestor's mean."""
    sampler = gaussian(STEPS)
    moved = sampler.advance(sampler.init([3, 4]), to=2)
    seen = Look(
        moved,
        torch.tensor([0.5, -1.0], dtype=torch.float64),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64),
        sampler.noise_scale(1),
    )
    copies = seen.fork([1] * 400 + [0])
    assert (copies.scores[0], copies.scores[400]) == (-1.0, 0.5)  # whose weights would hide
    assert copies.slopes[[0, 400]].tolist() == [[3.0, 4.0], [1.0, 2.0]]  # the slopes of another
    means = [one.particles.latents - one.scale * one.noise for one in (seen, copies)]
    torch.testing.assert_close(means[1], means[0][[1] * 400 + [0]])
    assert copies.particles.latents[0].equal(moved.latents[1])
    assert len(set(copies.particles.streams)) == 401
    assert abs(float(copies.particles.latents[:400].std(0).mean()) / seen.scale - 1) < 0.1


def test_a_steep_reward_throws_nothing_out() -> None:
    """A strength at which a push in full would overshoot by more at each step; the pushed noise stays noise-like."""
    sampler = gaussian(STEPS)
    *_, last = das_gradient(sampler, quadratic(sampler, 5.0), n=20, temperature=1e-3, tempering="constant", start=0.0)
    assert last.particles.latents.abs().max() < 5
    assert bounded(torch.tensor([[3.0, 4.0], [0.3, 0.4]])).norm(dim=1).tolist() == pytest.approx([2**0.5, 0.5])


def test_gradients_make_fewer_particles_do() -> None:
    """The errors of mean, variance and above all of the evidence against those of plain steering."""
    sampler = gaussian(STEPS)
    plain = torch.stack(
        [
            estimated(smc(sampler, quadratic(sampler), n=N, looks=4, temperature=TEMPERATURE, seed=10_000 * run))
            for run in range(RUNS)
        ]
    )
    guided = found(0.0, tempering="constant", start=0.0)
    errors = [(runs - target(0.0)).square().mean(0).sqrt() for runs in (guided, plain)]
    assert errors[0][3] < 0.6 * errors[1][3]
    assert (errors[0] / errors[1]).mean() < 0.8


def test_without_differences_there_is_nothing_to_steer_by() -> None:
    sampler = gaussian(STEPS)
    *_, last = das_gradient(sampler, lambda particles: 0 * particles.latents[:, 0], n=5, seed=2)
    alone = sampler.advance(sampler.init(range(2, 7)), to=STEPS)
    assert last.particles.latents.equal(alone.latents)
    assert last.particles.streams == alone.streams
