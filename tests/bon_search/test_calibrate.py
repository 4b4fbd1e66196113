"""Calibration on previews whose informativeness is made to measure."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bon_search.calibrate import Previews, Replays, best_of_n_score, calibrate, measure
from bon_search.errors import SearchError
from bon_search.pruning import Cut, Schedule
from bon_search.search import Critic
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.particles import Particles

PROMPTS, MANY, STEPS = 8, 96, 20
SHARES = (0.25, 0.5)


def previews(correlation: float, look_cost: float = 0.1, shift: float = 0.0) -> Previews:
    """Normal scores whose previews correlate with the final ones as said, at all looks alike."""
    noise = torch.randn(PROMPTS, MANY, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    final = noise[..., 2:]
    early = correlation * final + math.sqrt(1 - correlation**2) * noise[..., :2]
    return Previews(torch.cat([early, final], dim=-1) + shift, SHARES, STEPS, look_cost)


def test_best_of_n_is_the_mean_over_all_subsets() -> None:
    final = torch.tensor([[0.0, 1.0, 5.0], [2.0, 2.0, 2.0]])
    assert best_of_n_score(final, 1) == pytest.approx((2 + 2) / 2)
    assert best_of_n_score(final, 2) == pytest.approx(((1 + 5 + 5) / 3 + 2) / 2)
    assert best_of_n_score(final, 3) == pytest.approx((5 + 2) / 2)
    normal = torch.randn(400, 256, generator=torch.Generator().manual_seed(0))
    assert best_of_n_score(normal, 16) == pytest.approx(1.766, abs=0.02)  # expected maximum of 16 normals


def test_replays_without_cuts_are_best_of_n_and_perfect_previews_lose_nothing() -> None:
    perfect = Replays(previews(1.0))
    plain = perfect.score(Schedule(), 16)
    assert plain == pytest.approx(best_of_n_score(perfect.previews.scores[..., -1], 16), abs=0.06)
    assert perfect.score(Schedule((Cut(0.25, 0.1),)), 16) == plain
    ratio, starts = perfect.ratio(Schedule((Cut(0.25, 0.07),)), 16)
    assert starts in (15, 16, 17)
    assert ratio == pytest.approx((16 * 5 + 2 * 15 + 0.1 * 18) / (16 * 20.1), rel=0.12)


def test_useless_previews_only_cost() -> None:
    blind = Replays(previews(0.0))
    expected = best_of_n_score(blind.previews.scores[..., -1], 4)
    assert blind.score(Schedule((Cut(0.5, 0.25),)), 16) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("correlation", [0.3, 0.8])
def test_the_correlation_is_measured(correlation: float) -> None:
    spearman = 6 / math.pi * math.asin(correlation / 2)  # known for normals
    measured = previews(correlation, shift=7.0)
    assert measured.correlations == pytest.approx([spearman] * 2, abs=0.06)
    assert measured.deviation == pytest.approx(1, abs=0.1)


def test_good_previews_pay_and_the_file_is_read_by_halving(tmp_path: Path) -> None:
    found = calibrate(previews(0.9), target=16)
    assert found.ratio < 0.7
    assert found.schedule.cuts[0].at == 0.25
    assert f"at {found.ratio:.0%} of its cost" in found.verdict
    found.save(tmp_path / "schedule.json")
    assert Schedule.load(tmp_path / "schedule.json") == found.schedule
    data = json.loads((tmp_path / "schedule.json").read_text())
    assert (data["target"], data["ratio"], data["verdict"]) == (16, found.ratio, found.verdict)


@pytest.mark.parametrize(("correlation", "look_cost"), [(0.05, 0.1), (0.5, 40.0)])
def test_bad_previews_and_dear_looks_do_not_pay(correlation: float, look_cost: float) -> None:
    found = calibrate(previews(correlation, look_cost), target=16)
    assert (found.schedule, found.ratio, found.starts) == (Schedule(), 1.0, 16)
    assert "does not pay" in found.verdict


def first_coordinate(steps: int) -> Critic:
    def critic(particles: Particles) -> Tensor:
        clean = particles.latents if particles.step == steps else particles.x0
        assert clean is not None
        return clean[:, 0].float()

    return critic


def test_measured_on_a_sampler_previews_end_with_what_best_of_n_scores() -> None:
    sampler = GaussianMixtureSampler([[-2.0], [2.0]], [0.6, 0.6], [0.5, 0.5], steps=4)
    got = measure([(sampler, first_coordinate(4))] * 2, n=16, shares=(0.01, 0.25, 0.26, 0.75), seed=5)
    assert got.scores.shape == (2, 16, 3)
    assert got.shares == (1 / 4, 3 / 4)
    finished = sampler.advance(sampler.init(range(5, 21)), to=4).latents[:, 0].float().double()
    torch.testing.assert_close(got.scores[0, :, -1], finished)
    assert got.correlations[-1] > 0.95
    assert got.look_cost > 0


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(SearchError, match="needs 256 candidates"):
        calibrate(previews(0.5), target=64)
    with pytest.raises(SearchError, match="no look on the way"):
        measure([(GaussianMixtureSampler([[0.0]], [1.0], [1.0], steps=1), first_coordinate(1))], n=8)
    with pytest.raises(SearchError, match="one number of steps"):
        measure([])
    with pytest.raises(SearchError, match="not finite"):
        Previews(torch.full((1, 8, 3), math.nan), SHARES, STEPS, 0.1)
    with pytest.raises(SearchError, match="shape"):
        Previews(torch.zeros(1, 8, 5), SHARES, STEPS, 0.1)
    with pytest.raises(SearchError, match="no previews at step 7"):
        Replays(previews(0.5)).score(Schedule((Cut(0.35, 0.5),)), 16)
