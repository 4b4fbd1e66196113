"""Neighbours of a noise: the law they keep, on the toy and on stock pipelines."""

import math

import pytest

from bon_search.neighbours import neighbours
from pipelines.diffusers_sampler import DiffusersSampler
from tests.bon_search.search_contract import FAMILIES, PROMPT, normal, pipe_of
from tests.bon_search.tilts import mixture
from tests.pipelines import tiny

MANY = 5000


@pytest.mark.parametrize("size", [0.2, 0.6, 1.0])
def test_neighbours_of_noise_are_noise_at_a_known_correlation(size: float) -> None:
    sampler = normal(4)
    pivots = sampler.init(range(MANY))
    moved = neighbours(sampler, pivots, [size] * MANY, range(MANY, 2 * MANY))
    error = 4 / math.sqrt(4 * MANY)  # four deviations of a mean of so many products
    assert moved.latents.mean().item() == pytest.approx(0, abs=error)
    assert moved.latents.square().mean().item() == pytest.approx(1, abs=1.5 * error)
    assert (moved.latents * pivots.latents).mean().item() == pytest.approx(math.sqrt(1 - size**2), abs=1.5 * error)
    assert moved.streams == tuple(range(MANY, 2 * MANY))


def test_later_neighbours_keep_the_signal_and_move_the_noise() -> None:
    """A fresh noise (s = 1) is alpha·x0 + sigma·z; a small one stays near; both are as far as their formula says."""
    sampler = mixture(exact=False)
    pivot = sampler.advance(sampler.init([3]), to=4)
    alpha, sigma = sampler.levels[4]
    assert pivot.x0 is not None
    noise = (pivot.latents - alpha * pivot.x0) / sigma
    for size in (0.1, 1.0):
        moved = neighbours(sampler, pivot, [size] * MANY, range(MANY))
        fresh = ((moved.latents - alpha * pivot.x0) / sigma - math.sqrt(1 - size**2) * noise) / size
        assert fresh.mean(dim=0).tolist() == pytest.approx([0, 0], abs=4 / math.sqrt(MANY))
        assert fresh.var(dim=0).tolist() == pytest.approx([1, 1], abs=6 / math.sqrt(MANY))
        assert (moved.step, len(moved)) == (4, MANY)
        assert moved.x0 is not None
        assert moved.x0.equal(pivot.x0.expand(MANY, -1))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scale_of_any_pipeline_is_kept(family: str) -> None:
    """Initial noise is scaled by up to 14 (SDXL's Euler), and flows mix alpha = 1 − sigma."""
    sampler = DiffusersSampler(pipe_of(family), steps=4, prompt=PROMPT, **tiny.CALL[family], height=32, width=64)
    start = sampler.init([0, 1])
    moved = neighbours(sampler, start, [0.5, 0.5], [11, 12])
    scale = math.sqrt(float(sampler.schedule.alpha[0] ** 2 + sampler.schedule.sigma[0] ** 2))
    assert moved.latents.std().item() == pytest.approx(start.latents.std().item(), rel=0.08)
    assert start.latents.std().item() == pytest.approx(scale, rel=0.1)
    later = sampler.advance(start, to=2)
    fresh = neighbours(sampler, later, [1.0, 1.0], [11, 12])
    assert later.x0 is not None
    noise = fresh.latents - float(sampler.schedule.alpha[2]) * later.x0
    assert noise.std().item() == pytest.approx(float(sampler.schedule.sigma[2]), rel=0.08)
    assert (fresh.latents.dtype, fresh.latents.shape) == (later.latents.dtype, later.latents.shape)
