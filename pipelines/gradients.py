"""Gradients from pictures back to latents through a stock pipeline, in bounded memory.

The pipeline's own call runs without the `no_grad` around it. Each step is a window of its own whose activations are
thrown away and computed again on the way back (Chen et al., 2016, arXiv 1604.06174), so that a run of K steps keeps K
latents and the activations of one step. The weights are constants: no gradient is computed for them or kept in them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from pipelines.errors import PipelineError

T = TypeVar("T")


def recomputed(work: Callable[[bool], T]) -> T:
    """The result of `work(False)`; going backward its activations come from a second call, `work(True)`.

    Args:
        work: gives equal results at each call; told whether it is a repetition, so that nothing is counted twice.
    """
    calls = count()
    with set_checkpoint_early_stop(False):  # a pipeline's call tidies up at its end
        result: T = checkpoint(lambda: work(next(calls) > 0), use_reentrant=False, preserve_rng_state=False)
    return result


@contextmanager
def differentiable(name: str, modules: Sequence[nn.Module]) -> Iterator[None]:
    """While open, the parameters of the modules are constants for autograd.

    Raises:
        PipelineError: the pipeline `name` leaves torch on the way, where no gradient can follow.
    """
    trained = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    except RuntimeError as error:
        if "numpy" not in str(error):
            raise
        raise PipelineError(
            f"{name} turns pictures that need a gradient into arrays, as a watermark or a safety checker does; load it "
            "without (add_watermarker=False, safety_checker=None), or use a search without gradients."
        ) from error
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def undecorated(pipe: Any) -> Callable[..., Any]:  # noqa: ANN401 - diffusers has no types
    """The pipeline's call without the `no_grad` that diffusers puts around it."""
    call = type(pipe).__call__
    inner: Callable[..., Any] = getattr(call, "__wrapped__", call)
    return inner


def check_attached(result: Tensor, latents: Tensor, name: str) -> None:
    """Raise a PipelineError if the gradient was cut off on the way from the latents to the result."""
    if torch.is_grad_enabled() and latents.requires_grad and not result.requires_grad:
        raise PipelineError(
            f"{name} cuts the gradient between latents and pictures, so that no gradient search can run on it; use a "
            "search without gradients."
        )
