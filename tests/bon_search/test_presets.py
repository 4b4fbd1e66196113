"""The published settings: what each is made of, and that it beats plain best-of-N where it must."""

from collections.abc import Callable, Iterator

import pytest
import torch

from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.bfs import bfs
from bon_search.searches.presets import das, fk
from bon_search.searches.smc import SmcScored
from tests.bon_search.tilts import LINEAR, last, mixture

EXACT = mixture()
PRESETS: dict[str, Callable[..., Iterator[SmcScored]]] = {"fk": fk, "das": das, "bfs": bfs}


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
