"""A forecast of scores whose law is known."""

import math
from pathlib import Path

import pytest
import torch

from bon_search.calibrate import Previews
from bon_search.errors import SearchError
from bon_search.forecast import Forecast, fit, log_scale_error, published
from tests.bon_search.trajectories import SHARES, SPREADS, normal_previews

PREVIEWS = normal_previews(60, 80)


def test_parts_are_uncorrelated_and_add_up_to_the_final_score() -> None:
    found = fit(PREVIEWS)
    parts = found.parts(PREVIEWS.scores)
    torch.testing.assert_close(parts.sum(dim=-1), found.scale(PREVIEWS.scores[..., -1]))
    torch.testing.assert_close(found.parts(PREVIEWS.scores[..., :2]), parts[..., :2])
    centred = (parts - parts.mean(dim=1, keepdim=True)) / parts.std(dim=1, keepdim=True)
    correlations = torch.einsum("pmi,pmj->ij", centred, centred) / (60 * 79)
    torch.testing.assert_close(correlations, torch.eye(3, dtype=torch.float64), atol=0.05, rtol=0)


def test_the_law_of_prompts_is_found() -> None:
    found = fit(PREVIEWS)
    spreads = found.log_scales.exp()
    assert (spreads / spreads.square().sum().sqrt()).tolist() == pytest.approx(SPREADS, abs=0.03)
    assert found.log_scale_covariance.diagonal().sqrt().tolist() == pytest.approx([0.3] * 3, abs=0.1)
    assert found.deviation == pytest.approx(math.exp(0.3**2 / 2), abs=0.1)
    slope = 1 / (found.ceiling - float(PREVIEWS.scores[..., -1].mean()))  # of the scale w where most scores are
    assert float(found.mean_covariance.sum().sqrt()) / slope == pytest.approx(1, abs=0.35)


def test_the_ceiling_of_saturating_scores_is_found_and_none_is_seen_in_normal_ones() -> None:
    saturating = normal_previews(60, 80, ceiling=2.0)
    found = fit(saturating)
    assert found.ceiling == pytest.approx(2.0, abs=0.15)
    assert found.ceiling > float(saturating.scores.max())
    plain = PREVIEWS.scores[..., -1]
    assert fit(PREVIEWS).ceiling > float(plain.max() + 4 * plain.std(dim=1).mean())
    above = found.scale(torch.tensor([1.0, 1.9, 2.0, 50.0]))
    assert bool(above.isfinite().all())
    assert above[2] == above[3]


def test_the_log_of_a_sample_deviation_errs_as_said() -> None:
    draws = torch.randn(200_000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logs = draws.std(dim=1).log()
    bias, noise = log_scale_error(torch.tensor([5.0], dtype=torch.float64))
    assert float(logs.mean()) == pytest.approx(float(bias), abs=0.004)
    assert float(logs.var()) == pytest.approx(float(noise), rel=0.02)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "forecast.json"
    found = fit(PREVIEWS, price=0.004)
    found.save(path)
    again = Forecast.load(path)
    assert (again.price, again.shares, again.look_cost) == (0.004, SHARES, 0.12)
    assert again.parts(PREVIEWS.scores).equal(found.parts(PREVIEWS.scores))
    assert again.mean_covariance.equal(found.mean_covariance)
    path.write_text('{"cuts": []}')
    with pytest.raises(SearchError, match="is not a forecast"):
        Forecast.load(path)
    with pytest.raises(SearchError, match="cannot be read"):
        Forecast.load(tmp_path / "none.json")


@pytest.mark.parametrize("name", [name for name in published() if not name.startswith("embedded")])
def test_published_forecasts_are_whole(name: str) -> None:
    """Of FLUX.1-dev and SDXL; their scores are in the units of the rewards that are named."""
    found = Forecast.load(name)
    highest, deviation = {"image_reward": (2.2, 0.5), "pick_score": (25, 0.6), "hps_v2": (0.34, 0.007)}[
        name.partition("_")[2]
    ]
    assert found.ceiling > highest
    assert found.deviation == pytest.approx(deviation, rel=0.2)
    assert found.price == pytest.approx(0.0025, rel=0.4)
    assert found.places(20) == (4, 6, 8, 10, 12, 15, 20)
    assert found.places(28) == (6, 8, 11, 14, 17, 21, 28)
    for covariance in (found.mean_covariance, found.log_scale_covariance):
        assert bool((torch.linalg.eigvalsh(covariance) > 0).all())


def test_there_are_seven_published_ones() -> None:
    assert len(published()) == 7
    embedded = Forecast.load("embedded_llava_reward")
    assert 1 < embedded.ceiling < 2  # scores of the embedded reward end near 1
    assert embedded.places(20)[-1] == 20


def test_looks_fall_on_distinct_steps() -> None:
    found = fit(PREVIEWS)
    assert found.places(20) == (6, 12, 20)
    assert found.places(3) == (1, 2, 3)
    for steps in (1, 2):
        with pytest.raises(SearchError, match="not distinct"):
            found.places(steps)


def test_too_few_are_refused() -> None:
    for scores in (PREVIEWS.scores[:7], PREVIEWS.scores[:, :7]):
        with pytest.raises(SearchError, match="at least 8"):
            fit(Previews(scores, SHARES, 20, 0.1))
