"""Best-of-N on a law whose order statistics are known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bon_search.errors import SearchError
from bon_search.search import MAX_SEED, seeds
from bon_search.searches.best_of_n import best_of_n
from tests.bon_search.toy import STEPS, first_coordinate, standard_normal


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**40))
def test_batches_neither_lose_nor_change_a_candidate(n: int, batch: int, seed: int) -> None:
    looks = list(best_of_n(standard_normal(), first_coordinate, n=n, seed=seed, batch_size=batch))
    whole = next(best_of_n(standard_normal(), first_coordinate, n=n, seed=seed))
    assert torch.cat([look.scores for look in looks]).equal(whole.scores)
    assert [s for look in looks for s in look.particles.streams] == list(seeds(seed, n))
    assert {look.particles.step for look in looks} == {STEPS}
    assert max(len(look.particles) for look in looks) <= batch


def test_the_best_of_n_is_the_known_order_statistic() -> None:
    """The expected maximum of 16 standard normals is 1.7660; the toy's end state is cos(pi/2K)^K times the noise."""
    groups = 1500
    look = next(best_of_n(standard_normal(), first_coordinate, n=16 * groups))
    best = look.scores.view(groups, 16).max(dim=1).values / math.cos(math.pi / 2 / STEPS) ** STEPS
    assert best.mean().item() == pytest.approx(1.7660, abs=4 * 0.5 / math.sqrt(groups))  # sd of the maximum: 0.54


@pytest.mark.parametrize(
    ("seed", "n", "cure"), [(0, 0, "at least 1"), (-1, 4, "non-negative"), (MAX_SEED, 2, "smaller")]
)
def test_seeds_outside_their_range_are_refused_with_the_cure(seed: int, n: int, cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        seeds(seed, n)


def test_the_last_seed_there_is_can_be_used() -> None:
    assert list(seeds(MAX_SEED, 1)) == [MAX_SEED]
