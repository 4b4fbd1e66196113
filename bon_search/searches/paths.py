"""Search over paths: throw a few paths back in several ways, denoise further than they were, keep the best previews.

N noises are denoised to some step. In each round the paths have children: copies that are diffused `back` steps by
the forward kernel, each with noise of its own, and denoised `ahead` > `back` steps. The N children with the best
previews are the paths of the next round, until all children of the last round are finished candidates. The forward
kernel keeps each noise level's law, so without a choice the candidates would be those of the model.

References:
    Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps", 2025, section 3
    (arXiv 2501.09732).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bon_search.checks import check_count, check_share
from bon_search.errors import SearchError
from bon_search.ledger import Cost
from bon_search.portions import portions
from bon_search.search import Critic, Scored, seeds
from bon_search.searches.halving import best
from pipelines.noise import derive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipelines.sampler import Sampler

__references__ = ("arXiv:2501.09732",)
__cost__ = "at most n·K NFE, about n / ahead rewards"


def search_over_paths(
    sampler: Sampler,
    critic: Critic,
    *,
    n: int,
    paths: int = 2,
    start: float = 0.25,
    back: float = 0.1,
    ahead: float = 0.2,
    seed: int = 0,
) -> Iterator[Scored]:
    """Branch a few paths by partial re-noise and keep the best previews, for the NFE of n candidates.

    Args:
        sampler: Any; children differ by the noise of the forward kernel, so the solver need not draw any.
        critic: Need only rank the children of one round.
        n: How many candidates' NFE to spend; it decides how many children the paths have. If it does not pay for a
            child of each path in each round, or if there are fewer than 3 steps, n candidates are finished instead.
        paths: N, kept in each round; path k starts from seed + k.
        start: Share of the steps before the first round.
        back: Share of the steps that children are thrown back.
        ahead: Share of the steps that they are denoised from there, more than `back`.
        seed: As above.

    Yields:
        The paths at the start, the children of each round, and at last the finished ones.

    Raises:
        SearchError: An argument out of range, a score that is NaN.
    """
    plan = _plan(n, sampler.steps, paths, start, back, ahead)
    return _run(sampler, critic, seeds(seed, n)[: plan.paths], plan)


def cost(n: int, steps: int, paths: int = 2, start: float = 0.25, back: float = 0.1, ahead: float = 0.2) -> Cost:
    """What `search_over_paths` spends, exactly; at most n·steps NFE."""
    plan = _plan(n, steps, paths, start, back, ahead)
    children = sum(one.children for one in plan.rounds)
    nfe = plan.paths * plan.start + sum(one.children * one.price for one in plan.rounds)
    return Cost(nfe=nfe, rewards=plan.paths + children, decodes=plan.paths + children)


@dataclass(frozen=True)
class _Round:
    """Children that are diffused back to one step and denoised to another."""

    back: int
    to: int
    children: int = 0

    @property
    def price(self) -> int:
        """NFE of a child."""
        return self.to - self.back


@dataclass(frozen=True)
class _Plan:
    """The search in steps: how many paths go to `start`, and the rounds from there."""

    paths: int
    start: int
    rounds: tuple[_Round, ...]


def _run(sampler: Sampler, critic: Critic, starts: Sequence[int], plan: _Plan) -> Iterator[Scored]:
    particles = sampler.advance(sampler.init(starts), to=plan.start)
    scores = critic(particles)
    yield Scored(particles, scores)
    for number, one in enumerate(plan.rounds):
        kept = best(scores, plan.paths)
        parents = particles.fork([kept[k % len(kept)] for k in range(one.children)])
        particles = sampler.renoise(parents, to=one.back, seed=derive("search_over_paths", starts[0], number))
        particles = sampler.advance(particles, to=one.to)
        scores = critic(particles)
        yield Scored(particles, scores)


def _plan(n: int, steps: int, paths: int, start: float, back: float, ahead: float) -> _Plan:
    """Fit the search into n·K NFE; without rounds it is n finished candidates."""
    check_count("n", n)
    check_count("paths", paths)
    for name, share in (("start", start), ("back", back), ("ahead", ahead)):
        check_share(name, share)
    if ahead <= back:
        raise SearchError(
            f"Children that are thrown back {back} of the steps and denoised {ahead} never arrive; give an `ahead` "
            "that is larger than `back`."
        )
    whole = _Plan(n, steps, ())
    if steps < 3:
        return whole
    begun = min(max(2, round(start * steps)), steps - 1)
    far = min(max(1, round(back * steps)), begun - 1)
    rounds = _rounds(steps, begun, far, max(far + 1, round(ahead * steps)))
    counts = portions(n * steps - paths * begun, [one.price for one in rounds])
    if min(counts) < paths:
        return whole
    return _Plan(paths, begun, tuple(_Round(o.back, o.to, c) for o, c in zip(rounds, counts, strict=True)))


def _rounds(steps: int, start: int, back: int, ahead: int) -> list[_Round]:
    """From `start` to the end, `ahead` − `back` steps a round."""
    rounds, at = [], start
    while at < steps:
        rounds.append(_Round(at - back, min(at - back + ahead, steps)))
        at = rounds[-1].to
    return rounds
