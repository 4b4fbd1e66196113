"""SVDD: at every step one particle has several children, of which one is drawn by exp(score of its x0 / temperature).

If r(x0) is the soft value log E[exp(r / temperature) | state], the particle that comes out follows the tilted law
p(x)·exp(r(x) / temperature) / Z, as the number of children grows.

Each step costs 2M − 1 NFE for M children: M to look one step further than they are, which is what their own x0 takes,
and M − 1 to make the next children, of which the chosen one's look already is one. Children that are compared are
always at different states; looking at the x0 that they come with would be choosing at random, as they share it.

References:
    Li et al., "Derivative-Free Guidance in Continuous and Discrete Diffusion Models with Soft Value-Based Decoding",
    2024 (arXiv 2408.08252).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bon_search.branching import START, check_stochastic, first_look, noise_ends
from bon_search.checks import check_absolute
from bon_search.ledger import Cost
from bon_search.potentials import Scale
from bon_search.resampling import multinomial
from bon_search.search import Critic, Scored, seeds
from bon_search.searches.halving import best
from bon_search.weighted import checked_scores
from pipelines.noise import derive
from pipelines.particles import Particles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from pipelines.sampler import Sampler

__references__ = ("arXiv:2408.08252",)
__cost__ = "at most n·K NFE for M = (n + 1) / 2 children or more, M·(choices + 1) scores"
__branches__ = True


def svdd(
    sampler: Sampler,
    critic: Critic,
    *,
    n: int,
    temperature: float | None = None,
    strength: float = math.inf,
    deviation: float | None = None,
    start: float = START,
    seed: int = 0,
) -> Iterator[Scored]:
    """SVDD: at every step one of several children goes on, the best or one drawn by exp(score / temperature).

    Args:
        sampler: Stochastic.
        critic: Need only rank the children of one look, unless a temperature or strength is given.
        n: Pictures' worth of work. It pays for the M children of the paper that fit: n = 2M − 1 always does for M.
        temperature: Divides the score, in its own units. None: deviation / strength.
        strength: The tilt in nats per deviation of the reward; used when the temperature is None. Infinite, as in the
            paper's code, it takes the best child.
        deviation: The reward's standard deviation within the prompt; that of the first look when None.
        start: Share of the steps before the first choice; until then the children are independent, child k from
            seed + k.
        seed: As above; of the draws too.

    Yields:
        The children at each look, and at last the finished ones, weighted by exp(score / temperature).

    Raises:
        SearchError: An argument out of range, a deterministic sampler, a score that is not finite.
    """
    check_stochastic(sampler, "svdd")
    scale = _scale(temperature, strength, deviation)
    if scale is not None:
        check_absolute(critic, "svdd")
    first = first_look(sampler.steps, start)
    seeds(seed, n)  # refuses n below 1
    return _run(sampler, critic, seeds(seed, _children(n, sampler.steps, first)), first, scale)


def cost(n: int, steps: int, start: float = START) -> Cost:
    """What `svdd` spends, exactly if fresh noise is drawn to the end; less where it stops earlier."""
    first = first_look(steps, start)
    m, choices = _children(n, steps, first), steps - first
    return Cost(nfe=m * steps + (m - 1) * choices, rewards=m * (choices + 1), decodes=m * (choices + 1))


def _scale(temperature: float | None, strength: float, deviation: float | None) -> Scale | None:
    """What scores are multiplied by for a draw; None to take the best child."""
    if temperature is None:
        return None if math.isinf(strength) else Scale(None, strength, deviation)
    return Scale(temperature)


def _run(sampler: Sampler, critic: Critic, starts: Sequence[int], first: int, scale: Scale | None) -> Iterator[Scored]:
    children = sampler.advance(sampler.init(starts), to=first - 1)
    looked, full = sampler.advance(children, to=first), None
    while True:
        scores = critic(looked)
        values = checked_scores(scores, looked)
        full = full or (scale.full(values) if scale else None)
        log_weights = values * full if full else None
        yield Scored(looked, scores, log_weights)
        if looked.step == sampler.steps:
            return
        chosen = _chosen(values, log_weights, scale, derive("svdd", starts[0], looked.step))
        children = _next(sampler, children, looked, chosen)
        looked = sampler.advance(children, to=looked.step + 1)


def _chosen(values: Tensor, log_weights: Tensor | None, scale: Scale | None, key: int) -> int:
    """The best child, or a draw; scores that have not differed yet all weigh the same."""
    if scale is None:
        return best(values, 1)[0]
    return int(multinomial(values * 0 if log_weights is None else log_weights, 1, key))


def _next(sampler: Sampler, children: Particles, looked: Particles, chosen: int) -> Particles:
    """As many children of the chosen one, of which its look is the first, at the step of the look; or it alone."""
    if len(children) == 1 or children.step >= noise_ends(sampler):
        return looked[[chosen]]
    siblings = children.fork([chosen] * len(children))[1:]
    return Particles.cat([looked[[chosen]], sampler.advance(siblings, to=looked.step)])


def _children(n: int, steps: int, first: int) -> int:
    """The most M with M·K + (M − 1)·choices <= n·K."""
    choices = steps - first
    return (n * steps + choices) // (steps + choices)
