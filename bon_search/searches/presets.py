"""Published particle methods as settings of `smc`, without their gradients and without their defects.

    method   tempering    potential    resampler   resamples             reference
    fk       constant     maximum      ssp         ESS below n / 2       Singhal et al., arXiv 2501.06848
    das      increasing   difference   ssp         ESS below n / 2       Kim et al., arXiv 2501.05803
    bfs      increasing   maximum      ssp         ESS below n / 2       Zhang et al., arXiv 2505.23614
    svdd     constant     difference   single      always, second step   Li et al., arXiv 2408.08252

What differs from the papers, everywhere: weights are carried over looks that do not resample, the final correction
telescopes, strength is in deviations of the reward, and FK's multinomial draws are replaced by SSP. Each is a search:
it ends with all distinct finished particles, of which the caller takes the best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bon_search.errors import SearchError
from bon_search.searches.smc import smc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bon_search.looks import Looks
    from bon_search.search import Critic
    from bon_search.weighted import SmcScored
    from pipelines.sampler import Sampler

__references__ = ("arXiv:2501.06848", "arXiv:2501.05803", "arXiv:2505.23614", "arXiv:2408.08252")

FK_LOOKS = (0.2, 0.4, 0.6, 0.8)


def fk(
    sampler: Sampler, critic: Critic, *, n: int, strength: float = 5.0, looks: Looks = FK_LOOKS, seed: int = 0
) -> Iterator[SmcScored]:
    """FK steering: favour whoever once looked best; cost: n·K NFE, n·(looks + 1) scores.

    The paper's λ = 10 on ImageReward is a strength of about 5 deviations.
    """
    return smc(sampler, critic, n=n, looks=looks, strength=strength, potential="maximum", seed=seed)


def das(
    sampler: Sampler, critic: Critic, *, n: int, strength: float = 5.0, looks: Looks = None, seed: int = 0
) -> Iterator[SmcScored]:
    """DAS without gradients: a tilt that grows with the steps; cost: n·K NFE, n·(looks + 1) scores."""
    return smc(
        sampler, critic, n=n, looks=looks, strength=strength, tempering="increasing", potential="difference", seed=seed
    )


def bfs(
    sampler: Sampler, critic: Critic, *, n: int, strength: float = 5.0, looks: Looks = None, seed: int = 0
) -> Iterator[SmcScored]:
    """Breadth-first search, its authors' best settings; cost: n·K NFE, n·(looks + 1) scores."""
    return smc(
        sampler, critic, n=n, looks=looks, strength=strength, tempering="increasing", potential="maximum", seed=seed
    )


def svdd(
    sampler: Sampler,
    critic: Critic,
    *,
    n: int,
    strength: float = 5.0,
    every: int = 2,
    start: float = 0.2,
    seed: int = 0,
) -> Iterator[SmcScored]:
    """SVDD: of n children one is chosen, in proportion to exp(score / temperature), and has n children again.

    The estimate x0 at step k was made from the state at k − 1, which children of step k − 1 share. So a choice has
    something to choose from at every second step at the earliest, as CoDe does it; cost: n·K NFE, n scores per choice.

    Args:
        sampler: Stochastic.
        critic: Absolute.
        n: Children.
        strength: In deviations of the reward at the first choice.
        every: Steps from one choice to the next, at least 2.
        start: Share of the steps before which previews say too little to choose by.
        seed: Of the children and the choices.

    Raises:
        SearchError: `every` is less than 2, or another argument is out of range.
    """
    if every < 2:
        raise SearchError(
            f"every = {every} would choose among children with one and the same estimate, since a preview is one step "
            "old; choose at every second step or less often."
        )
    looks = range(max(1, round(start * sampler.steps)), sampler.steps, every)
    return smc(
        sampler,
        critic,
        n=n,
        looks=list(looks),
        strength=strength,
        potential="difference",
        resampler="single",
        threshold=1.0,
        seed=seed,
    )
