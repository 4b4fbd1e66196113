"""What the searches that branch are held to: a Gaussian whose increments are known, and stock pipelines with noise.

Under the exact reverse diffusion of N(0, 1) the estimate x0 of the state at step k is α_k·x_k, a martingale with
independent increments: from step j to step k > j it gains N(0, α_k² − α_j²), and the finished point is that of α_K = 1.
So what a search gains by each of its choices under the reward r(x) = x is a formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bon_search.critic import PictureCritic
from bon_search.ledger import Cost, Ledger, MeteredSampler
from bon_search.search import Critic, Scored
from pipelines.diffusers_sampler import DiffusersSampler
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.particles import Particles
from tests.bon_search.search_contract import PROMPT, Recording, Search, pipe_of
from tests.bon_search.toy import Brightness
from tests.pipelines import tiny

STEPS = 8


def exact_normal(steps: int = STEPS) -> Recording:
    """N(0, 1), whose steps are the true reverse of a Markov diffusion."""
    return Recording([[0.0]], [1.0], [1.0], steps, eta=1.0, exact=True)


def value(particles: Particles) -> Tensor:
    """r(x) = x: of x0 until step `STEPS`."""
    points = particles.latents if particles.step == STEPS else particles.x0
    assert points is not None
    return points[:, 0]


def gain(step: int, before: int = 0) -> float:
    """Standard deviation of what the estimate gains from the state at `before` to that at `step`."""
    return math.sqrt(math.sin(math.pi * step / 2 / STEPS) ** 2 - math.sin(math.pi * before / 2 / STEPS) ** 2)


def expected_best(m: int) -> float:
    """E[max of m standard normals], by quadrature."""
    x = torch.linspace(-9, 9, 18001, dtype=torch.float64)
    below = torch.special.ndtr(x)
    return float(9 - (below**m).sum() * 0.001)


def best_of(looks: list[Scored], steps: int = STEPS) -> float:
    """The best score of a finished candidate."""
    return max(float(look.scores.max()) for look in looks if look.particles.step == steps)


def runs_of(search: Search, critic: Critic, n: int, runs: int, sampler: Any = None, **options: Any) -> Tensor:
    """The best of independent runs; (runs,)."""
    sampler = sampler or exact_normal()
    seeds = range(0, 10_000 * runs, 10_000)
    return torch.tensor(
        [best_of(list(search(sampler, critic, n=n, seed=seed, **options)), sampler.steps) for seed in seeds],
        dtype=torch.float64,
    )


def check_mean(found: Tensor, expected: float, errors: float = 4.0) -> None:
    """The mean of independent runs is the expected one, to so many standard errors.

    Raises:
        AssertionError: It is not.
    """
    error = float(found.std()) / math.sqrt(len(found))
    assert abs(float(found.mean()) - expected) < errors * error, (float(found.mean()), error, expected)


def check_cost(search: Search, cost: Callable[..., Cost], n: int, steps: int, **options: Any) -> Cost:
    """The formula bounds the ledger, which agrees with a counting sampler; streams are distinct; returns what is left.

    Raises:
        AssertionError: It does not.
    """
    sampler, ledger = exact_normal(steps), Ledger()
    metered = MeteredSampler(sampler, ledger)
    critic = PictureCritic(metered, Brightness(), "a point", ledger)
    looks = list(search(metered, critic, n=n, seed=7, **options))
    spent, planned = ledger.spent, cost(n, steps, **options)
    assert sampler.nfe == spent.nfe
    first = looks[0].particles.streams
    assert first == tuple(range(7, 7 + len(first)))
    ends = [stream for look in looks if look.particles.step == steps for stream in look.particles.streams]
    assert len(set(ends)) == len(ends) > 0
    left = Cost(planned.nfe - spent.nfe, planned.rewards - spent.rewards, planned.decodes - spent.decodes)
    assert min(left.nfe, left.rewards, left.decodes) >= 0
    return left


def check_repeats(run: Callable[[int], Iterator[Scored]]) -> None:
    """The same seed gives the same populations, whatever the global random state; a distant seed gives others.

    Raises:
        AssertionError: It does not.
    """
    populations = []
    for state, seed in enumerate((5, 5, 600)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(state)
            populations.append([look.particles for look in run(seed)])
    for one, other in zip(*populations[:2], strict=True):
        assert one.latents.equal(other.latents)
        assert one.streams == other.streams
    assert not populations[0][-1].latents.equal(populations[2][-1].latents)


def check_family(family: str, search: Search, n: int, eta: float = 1.0, **options: Any) -> None:
    """On a stock pipeline: finite candidates, all different, and the same when repeated.

    Raises:
        AssertionError: One of these fails.
    """
    call = {**tiny.CALL[family], "height": 32, "width": 32}
    sampler = DiffusersSampler(pipe_of(family), steps=3, prompt=PROMPT, eta=eta, **call)
    critic = PictureCritic(sampler, Brightness(), PROMPT, Ledger())
    runs = [[look.particles for look in search(sampler, critic, n=n, **options)] for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        assert one.latents.isfinite().all()
        assert one.latents.equal(other.latents)
        assert one.streams == other.streams
    ends = torch.cat([particles.latents for particles in runs[0] if particles.step == 3])
    assert len(ends.flatten(1).unique(dim=0)) == len(ends) > 0


def ranking(critic: Critic) -> Critic:
    """The same critic, which says that it only ranks."""

    def ranks(particles: Particles) -> Tensor:
        return critic(particles)

    ranks.absolute = False  # type: ignore[attr-defined]
    return ranks


def three_modes(*, exact: bool = False, eta: float = 0.0, steps: int = 20) -> GaussianMixtureSampler:
    """Three modes in the plane, far apart enough that the first steps decide which."""
    means, scales, weights = [[-2.0, 0.5], [1.0, 1.5], [2.5, -1.0]], [0.4, 0.8, 0.6], [0.5, 0.3, 0.2]
    return GaussianMixtureSampler(means, scales, weights, steps, eta=eta, exact=exact)
