"""The progress of a run on stderr: NFE with rate and time left, candidates finished, best score so far."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

from tqdm import tqdm

if TYPE_CHECKING:
    from types import TracebackType


class Progress:
    """A bar over the NFE of one run; use it as a context.

    Args:
        total: NFE of the whole run, or the most it may be; infinite if nobody knows.
    """

    def __init__(self, total: float) -> None:
        known = None if math.isinf(total) else total
        self._bar = tqdm(total=known, unit="NFE", leave=False, dynamic_ncols=True)
        self._done = 0
        self._best = -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def spent(self, nfe: int) -> None:
        """That many more NFE are done."""
        self._bar.update(nfe)

    def finished(self, score: float) -> None:
        """One more candidate is finished."""
        self._done += 1
        self._best = max(self._best, score) if not math.isnan(score) else self._best
        self._bar.set_postfix_str(f"{self._done} finished, best {self._best:.4g}")
