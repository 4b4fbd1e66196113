"""What gradient searches share: the sampler and critic that let gradients through, and the gradient of a look.

A critic that has a method `with_grad` is asked for its differentiable form, which refuses where there is none
(`PictureCritic.with_grad`). Any other critic, such as a plain function of the particles, is taken as it is: it must be
made of differentiable operations of torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from bon_search.differentiable import differentiable
from bon_search.errors import SearchError
from pipelines.particles import Particles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from bon_search.search import Critic
    from pipelines.sampler import Sampler


@dataclass(frozen=True)
class Gradients:
    """A sampler and a critic through which gradients flow from scores back to latents.

    Attributes:
        sampler: Its moves keep activations of one step at most.
        critic: Its scores carry a gradient.
    """

    sampler: Sampler
    critic: Critic

    @classmethod
    def of(cls, sampler: Sampler, critic: Critic) -> Gradients:
        """Those of a search.

        Raises:
            SearchError: One of them lets no gradient through; the sentence says which, and the cure.
        """
        moves, judge = differentiable(sampler).with_grad(), cast("Any", critic)
        return cls(moves, judge.with_grad() if hasattr(judge, "with_grad") else judge)


def gradients(objective: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of an objective () with respect to inputs of any shapes; zero where it does not depend on one.

    Raises:
        SearchError: It depends on none of them, or a gradient is NaN or infinite.
    """
    if not objective.requires_grad:
        raise SearchError(
            "The scores carry no gradient of the particles: the critic cuts it, for example by detach, rounding or "
            "numpy; make it of differentiable operations, or use a search without gradients, such as zero_order."
        )
    found = torch.autograd.grad(objective, list(inputs), allow_unused=True, materialize_grads=True)
    if not all(bool(one.isfinite().all()) for one in found):
        raise SearchError(
            "The gradient of the score is NaN or infinite; run the model and the reward in float32 or bfloat16, or use "
            "a search without gradients, such as zero_order."
        )
    return found


def wide(latents: Tensor) -> torch.dtype:
    """The number format in which noise is moved: float32, or wider if the latents are."""
    return torch.promote_types(latents.dtype, torch.float32)


def look(using: Gradients, particles: Particles, batch_size: int | None = None) -> tuple[Particles, Tensor, Tensor]:
    """Take one step and judge the estimate that it makes of the particles.

    Args:
        using: Where gradients flow.
        particles: N at step k.
        batch_size: So many at a time; all when None.

    Returns:
        The particles at step k + 1, their scores (N,) and the gradients of these (N, ...) with respect to the latents
        at step k; 1 NFE and 1 backward pass per particle.
    """
    size = batch_size or len(particles)
    parts = [_look(using, particles[start : start + size]) for start in range(0, len(particles), size)]
    moved, scores, slopes = zip(*parts, strict=True)
    return Particles.cat(moved), torch.cat(scores), torch.cat(slopes)


def _look(using: Gradients, particles: Particles) -> tuple[Particles, Tensor, Tensor]:
    with torch.enable_grad():
        latents = particles.latents.detach().requires_grad_()
        moved = using.sampler.advance(replace(particles, latents=latents), to=particles.step + 1)
        scores = using.critic(moved)
        (slopes,) = gradients(scores.sum(), [latents])
    return moved.detach(), scores.detach(), slopes.to(wide(latents))
