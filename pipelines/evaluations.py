"""How many rows the network computes for one step of one particle: guidance may double them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Evaluations:
    """Watches the modules of a pipeline between scheduler steps, and counts the rows they are given.

    Whatever module runs between two steps of the scheduler is the denoiser: one U-Net or transformer, or several.

    Attributes:
        nfe: particle steps seen so far.
        rows: rows that denoisers computed for them.
        calls: calls of denoisers for them, whatever the batch.
    """

    def __init__(self, pipe: Any) -> None:  # noqa: ANN401 - diffusers has no types
        self.modules = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
        self._pending: list[int] = []
        self.nfe = self.rows = self.calls = 0

    @property
    def per_nfe(self) -> float:
        """Rows per particle and step: 1.0 without guidance or before any step, 2.0 where guidance doubles the work."""
        return self.rows / self.nfe if self.nfe else 1.0

    @contextmanager
    def watching(self) -> Iterator[Callable[[int], None]]:
        """While open, counts; yields the function to call at each step with its number of particles."""
        hooks = [part.register_forward_pre_hook(self._seen, with_kwargs=True) for part in self.modules]
        self._pending = []
        try:
            yield self._step
        finally:
            for hook in hooks:
                hook.remove()

    def _seen(self, module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        rows = leading_rows(args, kwargs)
        if rows:
            self._pending.append(rows)

    def _step(self, n: int) -> None:
        self.nfe += n
        self.rows += sum(self._pending)
        self.calls += len(self._pending)
        self._pending = []


def leading_rows(args: Sequence[object], kwargs: Mapping[str, object]) -> int:
    """The batch that a network is called with: rows of its first latents, or how many it has in a list; 0 if none."""
    values = (*args, *kwargs.values())
    return next((len(value) for value in values if isinstance(value, Tensor | list) and _is_latent(value)), 0)


def _is_latent(value: Tensor | list[object]) -> bool:
    """Whether this may be a batch of latents: token ids and single numbers are not."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], Tensor) and value[0].is_floating_point()
    return value.is_floating_point() and value.ndim > 1
