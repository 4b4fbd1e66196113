"""The recipe of the embedded LLaVA-Reward: what training sees is what scoring sees, and labels are true."""

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType

import numpy as np
import pytest
import torch

from rewards.shapes.captions import parse
from rewards.shapes.detector import detect
from rewards.shapes.render import render
from rewards.shapes.scenes import held_out, random_scene
from rewards.shapes.verifier import judge, verify_batch

FOLDER = Path(__file__).parents[2] / "examples" / "embedded"


@pytest.fixture(scope="module", autouse=True)
def _recipe_on_the_path() -> Iterator[None]:
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def data(_recipe_on_the_path: None) -> ModuleType:
    import reward_data

    return reward_data


@pytest.fixture(scope="module")
def pool(data: ModuleType) -> object:
    """Forty clean renders with what the verifier finds in them."""
    from reward_pictures import Pool
    from reward_pool import table

    rng = Random(0)
    images = np.stack([render(random_scene(rng), rng) for _ in range(40)])
    return Pool(images, np.stack([table(found) for found in detect(images.astype(np.float32) / 255)]))


def test_a_packed_sentence_has_the_states_it_has_alone(data: ModuleType, pool: object) -> None:
    from reward_model import CELLS, ID, build_llava, read, see

    model = build_llava().eval()
    pixels = pool.pixels([0, 1])  # type: ignore[attr-defined]
    told = [data.sentences(pool.detected(row), Random(row), data.WEIGHTS) for row in (0, 1)]  # type: ignore[attr-defined]
    packed = data.pack(pool.objects[[0, 1]], told)  # type: ignore[attr-defined]
    with torch.no_grad():
        visual = see(model, pixels)
        states = read(model, visual, packed.ids, packed.positions, packed.segments)
        for row, start in ((0, 0), (1, len(told[1][0].words))):
            words = told[row][0 if start == 0 else 1].words
            ids = torch.tensor([[ID["<s>"], *[ID["<image>"]] * CELLS, *words]])
            alone = model.model(input_ids=ids, pixel_values=pixels[[row]]).last_hidden_state[0, 1 + CELLS :]
            torch.testing.assert_close(states[row, start : start + len(words)], alone, rtol=1e-4, atol=1e-5)


def test_twins_are_true_and_false_and_never_held_out(data: ModuleType, pool: object) -> None:
    from rewards.shapes.scenes import Thing

    made = [data.twins(pool.detected(row), Random(row), data.WEIGHTS) for row in range(40)]  # type: ignore[attr-defined]
    pairs = [(row, pair) for row, pair in enumerate(made) if pair]
    assert len(pairs) > 35
    images = pool.images.astype(np.float32) / 255  # type: ignore[attr-defined]
    for row, (true, false, change) in pairs:
        verdicts = verify_batch(images[[row, row]], [true, false])
        assert [verdict.correct for verdict in verdicts] == [True, False], (true.prompt, false.prompt, change)
        for spec in (true, false):
            things = [Thing(noun.shape, noun.color or "") for noun in spec.include for _ in range(noun.count)]
            assert not (all(noun.color for noun in spec.include) and held_out(things)), spec.prompt


def test_a_moved_and_mirrored_picture_keeps_its_verdict(data: ModuleType, pool: object) -> None:
    from reward_samples import mirrored, wandered

    for mirror in (False, True):
        moved = wandered(pool, range(40), Random(1), mirror=mirror)
        assert (moved.images != pool.images).any((1, 2, 3)).mean() > 0.8  # type: ignore[attr-defined]
        found = detect(moved.images.astype(np.float32) / 255)
        for row, objects in enumerate(found):
            spec = parse(random_sentence(pool, row, data))
            spec = mirrored(spec) if mirror else spec
            assert judge(objects, spec).correct == judge(moved.detected(row), spec).correct


def random_sentence(pool: object, row: int, data: ModuleType) -> str:
    made = data.twins(pool.detected(row), Random(row + 100), data.WEIGHTS)  # type: ignore[attr-defined]
    return made[row % 2].prompt if made else "a red circle"


def test_patch_labels_of_one_object_are_its_own() -> None:
    from reward_pictures import patch_labels

    table = np.full((1, 8, 5), -1, np.float32)
    table[0, 0] = (2, 5, 20.0, 43.0, 200)  # a blue triangle at column 2, row 5
    shape, color, centre, offset = patch_labels(table)
    assert shape[0, 5 * 8 + 2] == 2
    assert color[0, 5 * 8 + 2] == 5
    assert centre.nonzero().tolist() == [[0, 5 * 8 + 2]]
    assert (shape == 7).sum() > 55
    torch.testing.assert_close(offset[0, 5 * 8 + 2], (torch.tensor([20.0, 43.0]) - torch.tensor([19.5, 43.5])) / 16)


def test_best_of_n_against_all_draws() -> None:
    from itertools import combinations

    from reward_evaluate import best_of

    rng = np.random.default_rng(0)
    correct, scores = rng.random(7) < 0.5, rng.random(7)
    draws = [correct[max(draw, key=lambda index: scores[index])] for draw in combinations(range(7), 3)]
    assert best_of(correct, scores, 3) == pytest.approx(np.mean(draws))
