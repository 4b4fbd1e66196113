"""Looks by step, by share and by number."""

import numpy as np
import pytest

from bon_search.errors import SearchError
from bon_search.looks import Looks, look_steps


@pytest.mark.parametrize(
    ("looks", "steps", "expected"),
    [
        (None, 20, (5, 9, 13, 17)),
        (4, 20, (5, 9, 13, 17)),
        (1, 20, (11,)),
        (0, 20, ()),
        ([7, 3, 3, 20], 20, (3, 7)),  # in order, once, and the end needs no mention
        (range(2, 8, 2), 8, (2, 4, 6)),
        ((0.1, 0.35, 1.0), 20, (2, 7)),
        (np.array([2, 4]), 8, (2, 4)),
        (None, 2, (1,)),
        (None, 1, ()),
        ([0.01], 5, (1,)),
    ],
)
def test_looks_become_steps(looks: Looks, steps: int, expected: tuple[int, ...]) -> None:
    assert look_steps(looks, steps) == expected


@pytest.mark.parametrize("look", [0, -1, 21, 1.2, 0.0, True, float("nan")])
def test_looks_outside_the_run_are_refused(look: float) -> None:
    with pytest.raises(SearchError, match="from 1 to 20"):
        look_steps([look], 20)
