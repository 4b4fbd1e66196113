"""The recipe of the embedded LLaVA-Reward: what training sees is what scoring sees, and labels are true."""

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rewards.shapes.captions import parse
from rewards.shapes.detector import detect
from rewards.shapes.render import render
from rewards.shapes.scenes import held_out, random_scene
from rewards.shapes.verifier import verify_batch

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


def test_alignment_pairs_are_as_the_verifier_says(data: ModuleType, pool: object) -> None:
    from reward_pairs import renders, statements

    for kind in ("twins", "any"):
        pairs = list(statements(pool, 20, kind, "train", "0"))
        assert {right(pair.chosen) for pair in pairs} == {True}
        assert {right(pair.rejected) for pair in pairs} == {False}
        assert {np.array_equal(pair.chosen.image, pair.rejected.image) for pair in pairs} == {kind == "twins"}
    for pair in renders(20, "test", "0"):
        assert pair.chosen.prompt == pair.rejected.prompt
        assert right(pair.chosen)
        assert not right(pair.rejected)


def right(side: Any) -> bool:
    return verify_batch(side.image[None].astype(np.float32) / 255, [parse(side.prompt)])[0].correct


def test_candidates_are_paired_within_their_prompt_and_once() -> None:
    from reward_pairs import candidates
    from reward_samples import Group

    pictures = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 64, 3), np.uint8)
    group = Group("a red circle", "colors", tuple(range(6)), np.array([True, False, True, False, False, False]))
    pairs = list(candidates([group], [pictures], 4, seed=0))
    assert sorted(int(pair.chosen.image[0, 0, 0]) for pair in pairs) == [0, 2]
    rejected = [int(pair.rejected.image[0, 0, 0]) for pair in pairs]
    assert len(set(rejected)) == 2
    assert set(rejected) <= {1, 3, 4, 5}


def test_damage_is_seen_and_as_strong_as_asked(data: ModuleType) -> None:
    from reward_pairs import DAMAGE, VISIBLE, damages

    whole, faint = (list(damages(10, "train", "0", strength, 0.5)) for strength in (1.0, 0.25))
    assert [pair.kind for pair in whole] == 2 * list(DAMAGE)
    for strong, weak in zip(whole, faint, strict=True):
        change = strong.rejected.image.astype(float) - strong.chosen.image
        assert np.sqrt(np.square(change).mean()) > VISIBLE
        assert np.array_equal(strong.chosen.image, weak.chosen.image)
        np.testing.assert_allclose(weak.rejected.image - strong.chosen.image.astype(float), 0.25 * change, atol=0.5)


def test_a_merged_checkpoint_scores_as_its_adapter_does(
    data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reward_base import merged, save_base
    from reward_model import build_llava
    from reward_pairs import main as write_pairs

    from rewards import load_reward
    from rewards.llava.checkpoint import save_checkpoint
    from rewards.training.records import read_records
    from rewards.training.run import Run, train
    from rewards.training.settings import Settings

    monkeypatch.setattr(sys, "argv", ["reward_pairs.py", "fidelity", str(tmp_path / "damage"), "--pairs", "8"])
    write_pairs()
    save_base(tmp_path / "base", build_llava())
    records, faults = read_records(tmp_path / "damage" / "pairs.jsonl")
    settings = Settings(steps=3, batch=8, micro=8, rank=4, alpha=8, rate=1e-2, warmup=0, tower=True)
    for _ in train(Run(records, str(tmp_path / "base"), tmp_path / "out", settings)):
        pass
    save_checkpoint(tmp_path / "merged", merged(tmp_path / "out"))
    images, prompts = [record.chosen.image for record in records], [record.chosen.prompt for record in records]
    pictures = [Image.open(path) for path in images]
    scores = [load_reward("llava-reward", checkpoint=tmp_path / name)(pictures, prompts) for name in ("out", "merged")]
    assert not faults
    assert scores[0].std() > 1e-3
    torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=1e-4)


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
