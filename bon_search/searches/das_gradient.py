"""DAS with the reward's gradient: particles pushed towards better estimates, weighed for it, resampled.

Each step from `start` on judges the estimate that it makes, and pushes its own fresh noise along the gradient of the
score, by as much as a tempered strength says. The weights hold both the tilt and what the push does to the law, so that
the finished population stands for p(x)·exp(r(x) / temperature) / Z; pushing lets fewer particles suffice for it.
`bon_search.guided` has the formulas.

The search `das` is the same without gradients, for rewards that have none.

References:
    Kim, Kim and Park, "Test-time Alignment of Diffusion Models without Reward Over-optimization", 2025
    (arXiv 2501.05803): pushes from the first step on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bon_search.checks import check_absolute, check_share
from bon_search.gradients import Gradients
from bon_search.guided import Guided, check_noise, tempering_of
from bon_search.ledger import Cost
from bon_search.looks import FIRST
from bon_search.potentials import Scale
from bon_search.search import Critic, seeds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bon_search.weighted import SmcScored
    from pipelines.sampler import DifferentiableSampler

__references__ = ("arXiv:2501.05803", "arXiv:1707.01845")
__cost__ = "n·K NFE, n·(K·(1 − start) − 1) backward, as many looks and n scores more"
__branches__ = True


def das_gradient(  # noqa: PLR0913  as for smc
    sampler: DifferentiableSampler,
    critic: Critic,
    *,
    n: int,
    start: float = FIRST,
    strength: float = 3.0,
    deviation: float | None = None,
    temperature: float | None = None,
    tempering: str = "increasing",
    threshold: float = 0.5,
    seed: int = 0,
    batch_size: int | None = None,
) -> Iterator[SmcScored]:
    """Steer n particles by the reward's gradient and by resampling, towards p(x)·exp(r(x) / temperature).

    Args:
        sampler: Draws noise in its steps, lets gradients flow.
        critic: Absolute and differentiable; scores estimates and finished particles.
        n: Number of particles.
        start: Share of the steps before which particles go unguided, since estimates say little; from 0 up to 1.
        strength: The tilt in nats per deviation of the reward; used when the temperature is None.
        deviation: The reward's standard deviation within the prompt. None: that of the first look at which scores
            differ, once for the whole run; estimates differ less than finished pictures do, so that steers harder.
        temperature: Divides the score, in its own units. None: deviation / strength.
        tempering: "increasing", as in the paper, "constant" or "adaptive".
        threshold: Resample at a look whose ESS is at most threshold·n; above 0 and up to 1.
        seed: Particle k starts from seed + k; resampling derives from it too.
        batch_size: Particles whose gradients are taken at a time; all when None.

    Yields:
        The population at each look, before it is resampled and pushed, and at last the finished one.

    Raises:
        SearchError: An argument out of range, a critic that only ranks or gives no gradient, a deterministic sampler, a
            score or gradient that is not finite.
        UnsupportedScheduler: A scheduler that draws noise of its own; an eta above 0 takes its place.
    """
    check_absolute(critic, "das_gradient")
    check_share("start", start, zero=True)
    check_share("threshold", threshold)
    using = Gradients.of(sampler, critic)
    check_noise(sampler, "das_gradient", range(sampler.steps))
    guided = Guided(
        name="das_gradient",
        sampler=sampler,
        critic=critic,
        using=using,
        scale=Scale(temperature, strength, deviation),
        tempering=tempering_of(tempering),
        threshold=threshold,
        first=_first(start, sampler.steps),
        seed=seed,
        batch_size=batch_size,
    )
    return guided.from_noise(sampler.init(seeds(seed, n)))


def cost(n: int, steps: int, start: float = FIRST) -> Cost:
    """What `das_gradient` spends; less where some steps from the start on, but the last, draw no noise."""
    looks = max(0, steps - 1 - _first(start, steps))
    return Cost(nfe=n * steps, rewards=n * (looks + 1), decodes=n * (looks + 1), backwards=n * looks)


def _first(start: float, steps: int) -> int:
    """The first step that is judged; never pure noise, of which most models make one and the same estimate."""
    return max(1, round(start * steps))
