"""Work on a population in pieces that fit into memory."""

from collections.abc import Callable
from typing import TypeVar

import torch

from pipelines.errors import OutOfMemory, PipelineError

T = TypeVar("T")
CPU_SIGNS = ("not enough memory", "can't allocate memory", "out of memory")


class MicroBatches:
    """Cuts N particles into batches, and halves the batch, for good, when memory runs out.

    Args:
        size: the most particles in a batch; None for all of them.

    Raises:
        PipelineError: size is below 1.
    """

    def __init__(self, size: int | None = None) -> None:
        if size is not None and size < 1:
            raise PipelineError(f"`batch_size` must be at least 1, but is {size}; leave it out for no limit.")
        self.size = size

    def run(self, n: int, work: Callable[[slice], T]) -> list[T]:
        """The results of `work` on consecutive slices that cover range(n), in order.

        Raises:
            OutOfMemory: a batch of one particle does not fit.
        """
        results: list[T] = []
        start = 0
        while start < n:
            size = min(self.size or n, n - start)
            try:
                results.append(work(slice(start, start + size)))
            except (RuntimeError, MemoryError) as error:
                self._halve(size, error)
            else:
                start += size
                continue
            _free_memory()  # outside the handler: the traceback would keep the tensors of the failed call alive
        return results

    def _halve(self, size: int, error: Exception) -> None:
        if not is_out_of_memory(error):
            raise error
        if size == 1:
            raise OutOfMemory(
                f"One particle at a time does not fit into memory ({_first_line(error)}); use a smaller picture, "
                "a lower precision (dtype=bfloat16), or model offload."
            ) from error
        self.size = (size + 1) // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in CPU_SIGNS)


def _free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
