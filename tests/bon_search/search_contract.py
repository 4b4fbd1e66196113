"""What every search is held to: its cost, its seeds, and stock pipelines of several families."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bon_search.critic import PictureCritic
from bon_search.ledger import Cost, Ledger, MeteredSampler
from bon_search.search import Critic, Scored
from bon_search.searches.best_of_n import best_of_n
from pipelines.diffusers_sampler import DiffusersSampler
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.particles import Particles
from tests.bon_search.toy import Brightness
from tests.pipelines import tiny

Search = Callable[..., Iterator[Scored]]

STEPS = 20
FAMILIES = ("sd", "sdxl", "sd3", "flux", "sana")
PROMPT = "a red circle left of a blue square"


class Recording(GaussianMixtureSampler):
    """Keeps what was advanced and what came of it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.moves: list[tuple[Particles, Particles]] = []

    @property
    def nfe(self) -> int:
        """Evaluations of the denoiser, particle by particle."""
        return sum(len(after) * (after.step - before.step) for before, after in self.moves)

    def advance(self, particles: Particles, to: int) -> Particles:
        moved = super().advance(particles, to)
        self.moves.append((particles, moved))
        return moved


def normal(dimension: int, steps: int = STEPS) -> Recording:
    """N(0, I), deterministic; the end state is a known multiple of the initial noise."""
    return Recording([[0.0] * dimension], [1.0], [1.0], steps)


def clean(particles: Particles) -> Tensor:
    """The points (N, D) that a critic of toys with `STEPS` steps judges: x0 until they are finished."""
    points = particles.latents if particles.step == STEPS else particles.x0
    assert points is not None
    return points


def outward(particles: Particles) -> Tensor:
    """How far out a point lies along the diagonal; standard normal if the point is."""
    return clean(particles).sum(dim=1) / clean(particles).shape[1] ** 0.5


def near(target: float) -> Critic:
    """Minus the squared distance from (target, …, target); the optimum is 0."""
    return lambda particles: -(clean(particles) - target).square().sum(dim=1)


def indifferent(particles: Particles) -> Tensor:
    """The same score for all."""
    return torch.zeros(len(particles))


def finished(looks: Iterator[Scored]) -> list[Scored]:
    """The looks at finished candidates."""
    return [look for look in looks if look.particles.step == STEPS]


def found(looks: Iterator[Scored]) -> float:
    """The best score of a finished candidate."""
    return max(float(look.scores.max()) for look in finished(looks))


def gains(search: Search, critic: Critic, dimension: int, n: int, runs: int = 8, **options: Any) -> Tensor:
    """By how much its best beats that of best-of-N from the same seeds, with n images' NFE; (runs,).

    Raises:
        AssertionError: It spent more.
    """
    differences = []
    for seed in range(0, 10_000 * runs, 10_000):
        sampler = normal(dimension)
        ours = found(search(sampler, critic, n=n, seed=seed, **options))
        assert sampler.nfe <= n * STEPS
        differences.append(ours - found(best_of_n(normal(dimension), critic, n=n, seed=seed)))
    return torch.tensor(differences)


def check_cost(search: Search, cost: Callable[..., Cost], n: int, steps: int, **options: Any) -> None:
    """The formula, the ledger and a counting sampler agree; streams are distinct; the first are the seeds.

    Raises:
        AssertionError: They do not.
    """
    sampler, ledger = normal(2, steps), Ledger()
    metered = MeteredSampler(sampler, ledger)
    critic = PictureCritic(metered, Brightness(), "a point", ledger)
    looks = list(search(metered, critic, n=n, seed=7, **options))
    spent, planned = ledger.spent, cost(n, steps, **options)
    assert (spent.nfe, spent.rewards, spent.decodes) == (planned.nfe, planned.rewards, planned.decodes)
    assert sampler.nfe == spent.nfe <= n * steps
    first = looks[0].particles.streams
    assert first == tuple(range(7, 7 + len(first)))
    ends = [stream for look in looks if look.particles.step == steps for stream in look.particles.streams]
    assert len(set(ends)) == len(ends) > 0


def check_repeats(run: Callable[[int], Iterator[Scored]]) -> None:
    """The same seed gives the same populations, whatever the global random state; another seed gives others.

    Raises:
        AssertionError: It does not.
    """
    populations = []
    for state, seed in enumerate((5, 5, 6)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(state)
            populations.append([look.particles for look in run(seed)])
    for one, other in zip(*populations[:2], strict=True):
        assert one.latents.equal(other.latents)
        assert one.streams == other.streams
    assert not populations[0][-1].latents.equal(populations[2][-1].latents)


@functools.cache
def pipe_of(family: str) -> Any:
    """A tiny random pipeline of the family."""
    return tiny.make(family)


def check_family(family: str, search: Search, cost: Callable[..., Cost], n: int, **options: Any) -> None:
    """On a stock pipeline: finite candidates at the cost of the formula, the same when repeated.

    Raises:
        AssertionError: One of these fails.
    """
    call = {**tiny.CALL[family], "height": 32, "width": 32}
    sampler = DiffusersSampler(pipe_of(family), steps=3, prompt=PROMPT, **call)
    critic = PictureCritic(sampler, Brightness(), PROMPT, Ledger())
    runs = [[look.particles for look in search(sampler, critic, n=n, **options)] for _ in range(2)]
    assert sampler.nfe == 2 * cost(n, 3, **options).nfe
    for one, other in zip(*runs, strict=True):
        assert one.latents.isfinite().all()
        assert one.latents.equal(other.latents)
    ends = torch.cat([particles.latents for particles in runs[0] if particles.step == 3])
    assert len(ends.flatten(1).unique(dim=0)) == len(ends)  # no two candidates are the same
