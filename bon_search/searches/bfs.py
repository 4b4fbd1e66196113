"""BFS, breadth-first search over denoising paths: many at once, of which the promising have more children.

It is `smc` at the settings that its authors found best: a tilt that grows with the steps, the maximum of the scores so
far, SSP resampling. Every resampling keeps n particles, each with the whole number below or above n·w children; the
published code rounds and then cuts to n by index, which loses particles and favours those that come first.

After a resampling all particles go back a little by fresh noise and are denoised again. So copies part on deterministic
solvers too. On stochastic ones they part anyway, and the NFE may be worth more as further particles: set back = 0.

References:
    Zhang et al., "Inference-time Scaling of Diffusion Models through Classical Search", 2025 (arXiv 2505.23614).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bon_search.errors import SearchError
from bon_search.searches.smc import cost as smc_cost
from bon_search.searches.smc import smc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bon_search.ledger import Cost
    from bon_search.looks import Looks
    from bon_search.search import Critic
    from bon_search.weighted import SmcScored
    from pipelines.sampler import Sampler

__references__ = ("arXiv:2505.23614",)
__cost__ = "n·K·(1 + back·looks) NFE, n·(looks + 1) scores"

BACK = 0.05


def bfs(
    sampler: Sampler,
    critic: Critic,
    *,
    n: int,
    strength: float = 5.0,
    looks: Looks = None,
    threshold: float = 1.0,
    back: float = BACK,
    seed: int = 0,
) -> Iterator[SmcScored]:
    """Breadth-first search: resample paths in favour of promising ones, and let the copies part.

    Args:
        sampler: Any; a stochastic one if `back` is 0.
        critic: Absolute.
        n: Particles; particle k starts from seed + k.
        strength: The tilt in nats per deviation of the reward at the first look.
        looks: As in `smc`.
        threshold: Resample at a look whose effective sample size is at most threshold·n; 1 at every look.
        back: How far to go back after a resampling, as a share of the steps, at least one step; 0 not at all, as
            published.
        seed: As above; of the resampling and of the noise too.

    Yields:
        The population at each look, and at last the finished one, all with weights.

    Raises:
        SearchError: An argument out of range, a critic that only ranks, or copies that nothing would part.
    """
    if not back and not getattr(sampler, "stochastic", True):
        raise SearchError(
            "On a deterministic solver copies stay equal for ever unless they go back: set back above 0, such as "
            f"{BACK}, or give the sampler fresh noise (eta above 0)."
        )
    return smc(
        sampler,
        critic,
        n=n,
        looks=looks,
        strength=strength,
        tempering="increasing",
        potential="maximum",
        threshold=threshold,
        back=back,
        seed=seed,
    )


def cost(n: int, steps: int, looks: Looks = None, back: float = BACK) -> Cost:
    """What `bfs` spends if every look resamples, else less; equal finished particles count once."""
    return smc_cost(n, steps, looks, back)
