"""Which samplers have a form that lets gradients through."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bon_search.errors import SearchError

if TYPE_CHECKING:
    from pipelines.sampler import DifferentiableSampler, Sampler


def differentiable(sampler: Sampler) -> DifferentiableSampler:
    """The sampler, which has a differentiable form.

    Raises:
        SearchError: It has none.
    """
    if not hasattr(sampler, "with_grad"):
        raise SearchError(
            f"{type(sampler).__name__} lets no gradient through, which this search needs; use a search without "
            "gradients, such as zero_order."
        )
    return cast("DifferentiableSampler", sampler)
