"""Where a search looks at unfinished particles: steps, or shares of the way that suit any number of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from bon_search.errors import SearchError

Looks: TypeAlias = Sequence[float] | int | None
"""Steps (integers from 1), shares of the steps (floats up to 1), or how many, spread evenly; None: the usual four."""

FIRST, LAST, USUAL = 0.25, 0.85, 4  # previews before a quarter of the steps say nothing; after 0.85 copies hardly part


def look_steps(looks: Looks, steps: int) -> tuple[int, ...]:
    """The unfinished steps to look at, ascending and distinct; the finished step K needs no mention.

    Args:
        looks: as `Looks`.
        steps: K.

    Raises:
        SearchError: a look outside the run.
    """
    if looks is None:
        looks = USUAL
    if isinstance(looks, int):
        if looks < 0:
            raise SearchError(f"looks = {looks} is no number of looks; give 0 or more, or a list of steps.")
        looks = [FIRST + (LAST - FIRST) * (k / (looks - 1) if looks > 1 else 0.5) for k in range(looks)]
    return tuple(sorted({step for look in looks if (step := _step(look, steps)) < steps}))


def _step(look: float, steps: int) -> int:
    if isinstance(look, float) and 0 < look <= 1:
        return max(1, round(look * steps))
    if hasattr(look, "__index__") and not isinstance(look, bool) and 1 <= look <= steps:
        return int(look)
    raise SearchError(
        f"A look is a step from 1 to {steps} (an integer) or a share of the steps above 0 and up to 1 (a float such as "
        f"0.35), but got {look!r}."
    )
