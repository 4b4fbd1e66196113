"""Rows into micro-batches: which ones run together, in what order, and what happens when memory runs out."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewards.errors import RewardError
from rewards.llava.backbone import Picture


@dataclass(frozen=True)
class Row:
    """One picture with one prompt, ready for the backbone; rows of one picture share the object."""

    picture: Picture
    ids: list[int]


class MicroBatches:
    """Runs rows a few at a time and gives the outputs in the rows' order.

    Rows of one picture run together, others beside rows of about their length, the longest first, so that a batch that
    is too large fails at once; it is then halved, and the smaller size is kept.

    Args:
        forward: outputs (B, d) of B rows.
        size: rows in one pass, at most.
        prompts: rows in one pass, at most, if all are of one picture; by default `size` as well.
        fixed: never sort, never halve: the outputs depend on who runs with whom.
    """

    def __init__(
        self, forward: Callable[[Sequence[Row]], Tensor], size: int, *, prompts: int = 0, fixed: bool = False
    ) -> None:
        if size < 1:
            raise RewardError(f"Got batch_size {size}; expected at least 1.")
        self.size = size
        self.prompts = max(size, prompts)
        self.fixed = fixed
        self._forward = forward

    def __call__(self, rows: Sequence[Row]) -> Tensor:
        """Outputs (N, d) of N rows, in their order.

        Raises:
            RewardError: not even one row fits into memory, or with `fixed` not all that belong together.
        """
        outputs: dict[int, Tensor] = {}
        pending = deque(self._plan(rows))
        while pending:
            together = pending.popleft()
            result = self._attempt([rows[index] for index in together])
            if result is None:
                half = (len(together) + 1) // 2
                if _of_one_picture(together, rows):
                    self.prompts = half
                else:
                    self.size = half
                pending = deque(part for waiting in (together, *pending) for part in self._fitting(waiting, rows))
                continue
            outputs.update(zip(together, result, strict=True))
        return torch.stack([outputs[index] for index in range(len(rows))])

    def _fitting(self, indices: list[int], rows: Sequence[Row]) -> list[list[int]]:
        return _split(indices, self.prompts if _of_one_picture(indices, rows) else self.size)

    def _plan(self, rows: Sequence[Row]) -> list[list[int]]:
        if self.fixed:
            return _split(list(range(len(rows))), self.size)
        by_picture: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            by_picture.setdefault(id(row.picture), []).append(index)
        singles = sorted(
            (indices[0] for indices in by_picture.values() if len(indices) == 1),
            key=lambda index: -len(rows[index].ids),
        )
        shared = [sorted(indices, key=lambda index: -len(rows[index].ids)) for indices in by_picture.values()]
        groups = [*(indices for indices in shared if len(indices) > 1), *([singles] if singles else [])]
        return [part for group in groups for part in self._fitting(group, rows)]

    def _attempt(self, rows: Sequence[Row]) -> Tensor | None:
        """Outputs, or None if memory ran out and fewer rows might fit."""
        try:
            return self._forward(rows)
        except torch.OutOfMemoryError as error:
            if self.fixed or len(rows) == 1:
                cure = "a smaller batch_size" if len(rows) > 1 else "dtype='bfloat16', fewer num_crops or a device_map"
                raise RewardError(
                    f"The device's memory does not hold {len(rows)} picture{'s' * (len(rows) > 1)} at once; "
                    f"take {cure}."
                ) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def _split(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _of_one_picture(indices: list[int], rows: Sequence[Row]) -> bool:
    return all(rows[index].picture is rows[indices[0]].picture for index in indices)
