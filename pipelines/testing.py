"""What every sampler promises, as one call, for the authors of samplers."""

from collections.abc import Sequence

import torch

from pipelines.particles import Particles
from pipelines.sampler import Sampler


def check_sampler(sampler: Sampler, seeds: Sequence[int] = (0, 1, 2), *, tolerance: float = 0.0) -> None:
    """Run the invariants that searches rely on.

    Seeds decide the noise; a split run equals an unsplit one; the order and the company of particles do not matter;
    copies with new streams part exactly if the sampler says so; pictures are in range; renoised particles can go on.

    Args:
        sampler: with at least two steps.
        seeds: three or more different ones.
        tolerance: the largest absolute difference of latents that permuting or splitting the batch may cause.

    Raises:
        AssertionError: with the name of the promise that is broken.
    """
    start, k = sampler.init(seeds), sampler.steps
    assert start.step == 0, "init must give particles at step 0"
    assert _apart(start, sampler.init(seeds)) == 0, "the same seeds must give the same noise"
    whole, half = sampler.advance(start, k), sampler.advance(start, k // 2)
    assert (whole.step, half.step) == (k, k // 2), "advance must stop at the step asked for"
    assert _apart(sampler.advance(half, k), whole) == 0, "a split run must equal an unsplit one"
    order = [2, 0, 0]
    permuted = sampler.advance(half[order], k)
    assert _apart(permuted, whole[order]) <= tolerance, "the order of particles must not matter"
    assert _apart(sampler.advance(half[[1]], k), whole[[1]]) <= max(tolerance, 1e-3), "company must not matter"
    last = sampler.stochastic_steps.stop
    for step in {0, last}:
        first, second = sampler.advance(sampler.advance(start, step).fork([0, 0]), k).latents
        parted = bool((first - second).abs().max() > max(tolerance, 1e-3))
        assert parted == (step < last), "copies must part exactly if a step still to come is stochastic"
    assert sampler.stochastic == bool(sampler.stochastic_steps), "stochastic must mean that some step is"
    for particles in (half, whole):
        images = sampler.decode(particles)
        assert images.dtype == torch.float32, "pictures must be float32"
        assert len(images) == len(seeds), "one picture per particle"
        assert images.min() >= 0, "pictures must be in [0, 1]"
        assert images.max() <= 1, "pictures must be in [0, 1]"
    again = sampler.renoise(whole, 1, seed=0)
    assert again.step == 1, "renoise must go back to the step asked for"
    assert _apart(sampler.renoise(whole[order], 1, seed=0), again[order]) == 0, "renoising must go by stream"
    assert sampler.advance(again, k).latents.isfinite().all(), "renoised particles must be able to go on"


def _apart(one: Particles, other: Particles) -> float:
    return float((one.latents - other.latents).abs().max())
