"""Pictures are decoded once; what a frozen tower gives for one depends neither on companions nor on what is kept."""

from pathlib import Path

import pytest
import torch

from rewards.training import sights
from rewards.training.sights import Sights
from rewards.training.trainee import load_trainee
from tests.rewards.training.world import pictures, small


@pytest.mark.parametrize("tower", [False, True])
def test_what_is_kept_is_what_came_first_and_changes_nothing(
    tower: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = pictures(tmp_path, 6, 0)
    trainee, loaded = load_trainee("embedded", small(tower=tower))
    opened: list[Path] = []
    monkeypatch.setattr(sights, "open_picture", lambda path: (opened.append(path), open_picture(path))[1])
    room = 4 * (3 * 64 * 64 if tower else 64 * 160) * 3  # three of them
    few, all_of_them = Sights(trainee, loaded.inputs, keep=room), Sights(trainee, loaded.inputs)
    first, again = few.rows(sides), few.rows(sides)
    assert len(opened) == 6 + 3
    assert opened.count(sides[0].image) == 1
    kept = [all_of_them.rows(sides) for _ in range(2)][1]
    assert len(opened) == 6 + 3 + 6
    for rows, features in (again, kept):
        assert [row.ids for row in rows] == [row.ids for row in first[0]]
        assert all(torch.equal(a.picture.pixels, b.picture.pixels) for a, b in zip(rows, first[0], strict=True))
        for mine, theirs in zip(features or [], first[1] or [], strict=True):
            assert torch.equal(mine, theirs)
    assert (first[1] is None) == tower


open_picture = sights.open_picture


def test_beside_features_nothing_of_a_pictures_pixels_is_kept(tmp_path: Path) -> None:
    trainee, loaded = load_trainee("embedded", small())
    rows, features = Sights(trainee, loaded.inputs).rows(pictures(tmp_path, 2, 0))
    assert features is not None
    assert [row.picture.pixels.untyped_storage().nbytes() for row in rows] == [0, 0]


def test_features_are_those_of_the_picture_alone_in_passes_of_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = pictures(tmp_path, 7, 0)
    trainee, loaded = load_trainee("embedded", small())
    _, alone = Sights(trainee, loaded.inputs).rows(sides)
    monkeypatch.setattr(sights, "_PICTURES", {"cpu": 4})  # two passes, the second one filled
    _, together = Sights(trainee, loaded.inputs).rows(sides)
    assert alone is not None
    assert together is not None
    assert len(together) == 7
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
