"""DNO: gradient ascent on all noise of a run, that of its start and that of every step that draws some.

    maximise  strength·r(x(z₀, … z_K)) / deviation + plausibility·(mean of log p₁ + log p₂ over permutations of z)

by Adam with clipped gradients; z is all noise as one vector, and p₁, p₂ bound the probability that true noise has such
moments (`bon_search.gaussianity`). On a deterministic sampler the noise of the start is all there is.

Going back keeps the activations of a single step, however long the run (`pipelines.gradients`). All iterates are
candidates, so the best one is kept. The ascent begins at the best of some independent candidates, whose scores also
tell the reward's deviation.

References:
    Tang et al., "Inference-Time Alignment of Diffusion Models with Direct Noise Optimization", 2024 (arXiv 2405.18881).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from bon_search.ascent import Ascent, ascent_cost
from bon_search.checks import check_absolute, check_count
from bon_search.errors import SearchError
from bon_search.gaussianity import concentration
from bon_search.gradients import Gradients
from bon_search.potentials import Scale
from bon_search.search import Critic, Scored, seeds
from pipelines.noise import derive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from bon_search.ledger import Cost
    from pipelines.sampler import DifferentiableSampler

__references__ = ("arXiv:2405.18881",)
__cost__ = "n·K NFE, n rewards, (n − 1)·K backward"
__continued__ = {"start": 1}
__branches__ = True

CLIP = 1.0


def dno(  # noqa: PLR0913  three for the strength, as for smc
    sampler: DifferentiableSampler,
    critic: Critic,
    *,
    n: int,
    start: int = 4,
    learning_rate: float = 0.1,
    plausibility: float = 1.0,
    strength: float = 10.0,
    deviation: float | None = None,
    temperature: float | None = None,
    seed: int = 0,
) -> Iterator[Scored]:
    """Climb by the reward's gradient in the noise of all steps at once; finishes n candidates.

    Args:
        sampler: Lets gradients flow, and says how much noise its steps draw.
        critic: Absolute and differentiable.
        n: Candidates finished in all.
        start: Independent candidates, from the seeds seed, seed + 1, …; the best of them is climbed from. From another
            search's survivors on it is the best of these alone, unless set.
        learning_rate: By about how much each number of the noise moves in one iterate, above 0; 0.01 in the paper, for
            100 iterates.
        plausibility: Weight of the noise's plausibility in nats, at least 0; 0 leaves it out, as the paper's γ.
        strength: Nats per deviation of the reward; used when the temperature is None.
        deviation: The reward's standard deviation within the prompt; that of the first candidates when None.
        temperature: Divides the score, in its own units. None: deviation / strength.
        seed: As above.

    Yields:
        The first candidates, then each iterate.

    Raises:
        SearchError: An argument out of range, a critic that only ranks or gives no gradient, a score or gradient that
            is not finite.
        UnsupportedScheduler: A scheduler that draws noise of its own; an eta above 0 takes its place.
    """
    check_absolute(critic, "dno")
    check_count("start", start)
    if not 0 < learning_rate < math.inf:
        raise SearchError(f"learning_rate = {learning_rate} is out of range; give a number above 0, 0.1 is usual.")
    if not 0 <= plausibility < math.inf:
        raise SearchError(f"plausibility = {plausibility} is out of range; give 0 to leave it out, 1 is usual.")

    def prior(noise: Sequence[Tensor], place: int) -> Tensor:
        whole = torch.cat([one.flatten() for one in noise])
        return plausibility * concentration(whole, derive("dno", "permutations", seed, place))

    def optimiser(noise: Sequence[Tensor]) -> Optimizer:
        return torch.optim.Adam(list(noise), lr=learning_rate)

    return Ascent(
        name="dno",
        sampler=sampler,
        using=Gradients.of(sampler, critic),
        seeds=seeds(seed, n),
        first=min(start, n),
        scale=Scale(temperature, strength, deviation),
        prior=prior,
        optimiser=optimiser,
        clip=lambda d: CLIP,
        steps=[step for step in range(sampler.steps) if sampler.noise_scale(step) > 0],
    ).run()


def cost(n: int, steps: int, start: int = 4) -> Cost:
    """What `dno` spends, exactly."""
    return ascent_cost(n, steps, start)
