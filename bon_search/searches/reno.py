"""ReNO: gradient ascent on the initial noise, kept on its shell; for models of one or few steps.

    maximise  strength·r(x(z)) / deviation + (d − 1)·log|z| − |z|²/2

over the noise z of d numbers, by Nesterov's accelerated gradient with clipped gradients. The last two terms are the log
density of the length of true noise; the published weights, 0.01 for them and 1 for ImageReward, are a strength of about
50 deviations. All iterates are candidates, so the best one is kept, wherever the ascent goes.

The ascent begins at the best of some independent noises, whose scores also tell the reward's deviation.

References:
    Eyring et al., "ReNO: Enhancing One-step Text-to-Image Models through Reward-based Noise Optimization", 2024
    (arXiv 2406.04312).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from bon_search.ascent import Ascent, ascent_cost
from bon_search.checks import check_absolute, check_count, check_share
from bon_search.gaussianity import shell
from bon_search.gradients import Gradients
from bon_search.potentials import Scale
from bon_search.search import Critic, Scored, seeds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from bon_search.ledger import Cost
    from pipelines.sampler import DifferentiableSampler

__references__ = ("arXiv:2406.04312",)
__cost__ = "n·K NFE, n rewards, (n − 1)·K backward"
__continued__ = {"start": 1}

RATE, MOMENTUM = 0.05, 0.9  # the paper's 5, for an objective that is 0.01 of this one


def reno(  # noqa: PLR0913  three for the strength, as for smc
    sampler: DifferentiableSampler,
    critic: Critic,
    *,
    n: int,
    start: int = 4,
    step_size: float = 0.02,
    strength: float = 10.0,
    deviation: float | None = None,
    temperature: float | None = None,
    seed: int = 0,
) -> Iterator[Scored]:
    """Climb by the reward's gradient from the best noise of a few; finishes n candidates.

    Args:
        sampler: Lets gradients flow; noise of its steps is held.
        critic: Absolute and differentiable.
        n: Candidates finished in all.
        start: Independent candidates, from the seeds seed, seed + 1, …; the best of them is climbed from. From another
            search's survivors on it is the best of these alone, unless set.
        step_size: Longest move of one iterate, before momentum, as a share of the noise's length sqrt(d), above 0 and
            up to 1; 0.004 in the paper, for 50 iterates.
        strength: Nats per deviation of the reward; used when the temperature is None.
        deviation: The reward's standard deviation within the prompt; that of the first candidates when None.
        temperature: Divides the score, in its own units. None: deviation / strength.
        seed: As above.

    Yields:
        The first candidates, then each iterate.

    Raises:
        SearchError: An argument out of range, a critic that only ranks or gives no gradient, a score or gradient that
            is not finite.
    """
    check_absolute(critic, "reno")
    check_count("start", start)
    check_share("step_size", step_size)
    return Ascent(
        name="reno",
        sampler=sampler,
        using=Gradients.of(sampler, critic),
        seeds=seeds(seed, n),
        first=min(start, n),
        scale=Scale(temperature, strength, deviation),
        prior=_prior,
        optimiser=_optimiser,
        clip=lambda d: step_size * math.sqrt(d) / RATE,
    ).run()


def cost(n: int, steps: int, start: int = 4) -> Cost:
    """What `reno` spends, exactly."""
    return ascent_cost(n, steps, start)


def _prior(noise: Sequence[Tensor], place: int) -> Tensor:
    (start,) = noise
    return shell(start)


def _optimiser(noise: Sequence[Tensor]) -> Optimizer:
    return torch.optim.SGD(list(noise), lr=RATE, momentum=MOMENTUM, nesterov=True)
