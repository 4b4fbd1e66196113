"""DFS: one path at a time; where its preview is poor it goes back a few steps by fresh noise and tries again.

Part of the work is plain best-of-N: pilots that run to the end and are scored at every check. The threshold of a check
is a quantile of what they scored there, so no threshold depends on the scale of the reward. Then paths are searched one
after the other. A path below a check's threshold is renoised `back` from the best of its states there and denoised to
the check again, until it passes, or until what is left must be kept for finishing it; then the best state goes on.

Renoising parts the tries, so the solver may be deterministic. If it goes back all the way, a path that passes is a draw
from the model's law given that it passes; going back less is cheaper and stays near what was good.

References:
    Zhang et al., "Inference-time Scaling of Diffusion Models through Classical Search", 2025 (arXiv 2505.23614).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from bon_search.checks import check_absolute, check_share
from bon_search.errors import SearchError
from bon_search.ledger import Cost
from bon_search.looks import Looks, look_steps
from bon_search.search import Critic, Scored, seeds
from bon_search.weighted import checked_scores
from pipelines.noise import derive

if TYPE_CHECKING:
    from pipelines.particles import Particles
    from pipelines.sampler import Sampler

__references__ = ("arXiv:2505.23614",)
__cost__ = "at most n·K NFE, a score for each check and try"


@dataclass(frozen=True)
class State:
    """One particle at a check, and its score there."""

    particles: Particles
    score: float


def dfs(  # noqa: PLR0913  what a search has, and where, when and how far to go back
    sampler: Sampler,
    critic: Critic,
    *,
    n: int,
    quantile: float = 0.9,
    pilots: float = 0.25,
    back: float = 0.1,
    looks: Looks = None,
    thresholds: Sequence[float] | float | None = None,
    seed: int = 0,
) -> Iterator[Scored]:
    """Depth-first search: a path whose preview is below a quantile goes back by fresh noise, and tries again.

    Args:
        sampler: Any; a deterministic one does.
        critic: Absolute, since scores are compared with those of the pilots.
        n: Pictures' worth of work. Pilots and paths start from seed, seed + 1, …
        quantile: Of the pilots' scores at a check: the share of them that a path must surpass there.
        pilots: Share of the work that goes into pilots, rounded down to whole ones, but one at least.
        back: How far to go back, as a share of the steps.
        looks: The unfinished checks, as in `smc`; the finished candidate is always checked.
        thresholds: Scores that take the place of pilots: one for each check, or one for the finished candidate alone.
        seed: As above; of the noise of all tries too.

    Yields:
        The pilots at each check and finished, then each state of a path that is checked, finished or not.

    Raises:
        SearchError: An argument out of range, a score that is not finite.
    """
    check_absolute(critic, "dfs")
    check_share("quantile", quantile, zero=True)
    checks = (*look_steps(looks, sampler.steps), sampler.steps)
    bars = _given(thresholds, len(checks))
    count = 0 if bars else _pilots(n, pilots)
    path = _Path(sampler, critic, checks, _back(back, sampler.steps), seed)
    return _run(path, seeds(seed, n), count, bars, quantile)


def cost(
    n: int,
    steps: int,
    pilots: float = 0.25,
    back: float = 0.1,
    looks: Looks = None,
    thresholds: Sequence[float] | float | None = None,
) -> Cost:
    """What `dfs` spends at most; of the NFE it leaves less than one picture's worth."""
    checks = (*look_steps(looks, steps), steps)
    count = 0 if _given(thresholds, len(checks)) else _pilots(n, pilots)
    least = min(_back(back, steps), *(b - a for a, b in pairwise((0, *checks))))  # NFE of a score
    times = count * len(checks) + (n - count) * steps // least
    return Cost(nfe=n * steps, rewards=times, decodes=times)


@dataclass(frozen=True)
class _Path:
    """How a path is searched; the arguments of `dfs`."""

    sampler: Sampler
    critic: Critic
    checks: tuple[int, ...]
    back: int
    seed: int

    def run(self, start: int, bars: Sequence[float], budget: int) -> Generator[Scored, None, int]:
        """Yield every state that is checked, return the NFE spent: at least K, at most the budget."""
        particles, spent = self.sampler.init([start]), 0
        for check, bar in zip(self.checks, bars, strict=True):
            spent += check - particles.step
            best = yield from self._look(particles, check)
            back = min(self.back, check)
            while best.score < bar and spent + back + self.sampler.steps - check <= budget:
                key = derive("dfs", self.seed, spent)
                spent += back
                again = yield from self._look(self.sampler.renoise(best.particles, check - back, key), check)
                best = max(best, again, key=lambda state: state.score)
            particles = best.particles
        return spent

    def _look(self, particles: Particles, check: int) -> Generator[Scored, None, State]:
        particles = self.sampler.advance(particles, to=check)
        scores = self.critic(particles)
        yield Scored(particles, scores)
        return State(particles, float(checked_scores(scores, particles)[0]))


def _run(path: _Path, starts: Sequence[int], pilots: int, bars: Sequence[float], quantile: float) -> Iterator[Scored]:
    if pilots:
        bars = yield from _measured(path, starts[:pilots], quantile)
    steps, left = path.checks[-1], (len(starts) - pilots) * path.checks[-1]
    for start in starts[pilots:]:
        if left < steps:
            return
        left -= yield from path.run(start, bars, left)


def _measured(path: _Path, starts: Sequence[int], quantile: float) -> Generator[Scored, None, list[float]]:
    """Run the pilots; return the quantile of their scores at each check."""
    particles, bars = path.sampler.init(starts), list[float]()
    for check in path.checks:
        particles = path.sampler.advance(particles, to=check)
        scores = path.critic(particles)
        yield Scored(particles, scores)
        bars.append(float(torch.quantile(checked_scores(scores, particles), quantile)))
    return bars


def _given(thresholds: Sequence[float] | float | None, checks: int) -> tuple[float, ...]:
    """The thresholds of all checks; none if they are to be measured."""
    if thresholds is None:
        return ()
    bars = (-math.inf,) * (checks - 1) + (thresholds,) if isinstance(thresholds, int | float) else tuple(thresholds)
    if any(not isinstance(bar, int | float) or math.isnan(bar) for bar in bars):
        raise SearchError(f"thresholds = {thresholds!r} are no scores; give one number, or one for each check.")
    if len(bars) != checks:
        raise SearchError(
            f"{len(bars)} thresholds do not suit {checks} checks, of which the last is the finished candidate; give "
            "one for each, or a single one for the finished candidate."
        )
    return bars


def _pilots(n: int, pilots: float) -> int:
    check_share("pilots", pilots)
    return max(1, int(pilots * n))


def _back(back: float, steps: int) -> int:
    check_share("back", back)
    return max(1, round(back * steps))
