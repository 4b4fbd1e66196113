"""The published settings: what each is made of, and that it beats plain best-of-N where it must."""

from collections.abc import Callable, Iterator

import pytest
import torch

from bon_search.errors import SearchError
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.presets import bfs, das, fk, svdd
from bon_search.searches.smc import SmcScored
from tests.bon_search.tilts import LINEAR, STEPS, last, mixture

EXACT = mixture()
PRESETS: dict[str, Callable[..., Iterator[SmcScored]]] = {"fk": fk, "das": das, "bfs": bfs, "svdd": svdd}


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_steering_raises_the_mean_score_of_its_candidates(preset: Callable[..., Iterator[SmcScored]]) -> None:
    plain = torch.cat([next(best_of_n(EXACT, LINEAR.critic(), n=24, seed=99 * k)).scores for k in range(6)])
    steered = torch.cat([last(preset(EXACT, LINEAR.critic(), n=24, seed=99 * k)).scores for k in range(6)])
    assert steered.mean() > plain.mean() + 1.0 * plain.std()


def test_temperatures_rise_to_full_strength_in_das_and_bfs_and_are_full_in_fk() -> None:
    for preset, share in ((fk, 1.0), (das, 1.008**25 - 1), (bfs, 1.008**25 - 1)):
        first, *_, end = preset(EXACT, LINEAR.critic(), n=24)
        assert first.particles.step == 2
        assert first.temperature * share == pytest.approx(end.temperature)
        assert end.temperature == pytest.approx(float(first.scores.std()) / 5)


def test_svdd_goes_on_with_a_single_child_at_each_choice() -> None:
    first, second, *_, end = svdd(EXACT, LINEAR.critic(), n=8, start=0.25)
    assert [first.particles.step, second.particles.step, end.particles.step] == [2, 4, STEPS]
    for look in (second, end):
        assert look.ancestors is not None
        assert len(set(look.ancestors.tolist())) == 1
    assert second.scores.std() > 0  # children have parted by the next choice
    assert len(end.particles.latents.unique(dim=0)) == 8


def test_svdd_refuses_to_choose_among_equal_estimates() -> None:
    with pytest.raises(SearchError, match="one step old"):
        svdd(EXACT, LINEAR.critic(), n=8, every=1)
