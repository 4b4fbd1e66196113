"""Published particle methods as settings of `smc`, without their gradients and without their defects.

DAS as published, with the reward's gradient, is the search `das_gradient`; `das` here suits any reward.

    method   tempering    potential    resampler   resamples         reference
    fk       constant     maximum      ssp         ESS below n / 2   Singhal et al., arXiv 2501.06848
    das      increasing   difference   ssp         ESS below n / 2   Kim et al., arXiv 2501.05803

What differs from the papers, everywhere: weights are carried over looks that do not resample, the final correction
telescopes, strength is in deviations of the reward, and FK's multinomial draws are replaced by SSP. Each is a search:
it ends with all distinct finished particles, of which the caller takes the best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bon_search.searches.smc import cost as smc_cost
from bon_search.searches.smc import smc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bon_search.ledger import Cost
    from bon_search.looks import Looks
    from bon_search.search import Critic
    from bon_search.weighted import SmcScored
    from pipelines.sampler import Sampler

__references__ = ("arXiv:2501.06848", "arXiv:2501.05803")
__cost__ = "n·K NFE, n·(looks + 1) scores"
__branches__ = True

FK_LOOKS = (0.2, 0.4, 0.6, 0.8)


def fk(
    sampler: Sampler, critic: Critic, *, n: int, strength: float = 5.0, looks: Looks = FK_LOOKS, seed: int = 0
) -> Iterator[SmcScored]:
    """FK steering: resample in favour of whoever once looked best.

    The paper's λ = 10 on ImageReward is a strength of about 5 deviations.
    """
    return smc(sampler, critic, n=n, looks=looks, strength=strength, potential="maximum", seed=seed)


def das(
    sampler: Sampler, critic: Critic, *, n: int, strength: float = 5.0, looks: Looks = None, seed: int = 0
) -> Iterator[SmcScored]:
    """DAS without gradients (with them: das_gradient): resample by a tilt that grows with the steps."""
    return smc(
        sampler, critic, n=n, looks=looks, strength=strength, tempering="increasing", potential="difference", seed=seed
    )


def fk_cost(n: int, steps: int, looks: Looks = FK_LOOKS) -> Cost:
    """What `fk` spends at most; equal finished particles count once."""
    return smc_cost(n, steps, looks)


def das_cost(n: int, steps: int, looks: Looks = None) -> Cost:
    """What `das` spends at most; equal finished particles count once."""
    return smc_cost(n, steps, looks)
