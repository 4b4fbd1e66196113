"""HPSv2 against the original implementation, github.com/tgxs002/HPSv2 at 866735e with torchvision 0.29."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rewards import RewardError, load_reward
from rewards.clip import clean
from rewards.open_clip import VIT_H_14, build, renamed
from rewards.testing import check_reward
from rewards.views import Letterbox
from rewards.vision import VisionReward, normalised
from tests.rewards.standard.tiny import (
    GOLDENS,
    OPEN_CLIP,
    PROMPTS,
    golden,
    open_clip_shapes,
    pictures,
    weights,
    write_clip_tokenizer,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hpsv2")
    write_clip_tokenizer(folder)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": OPEN_CLIP}))
    state = weights(open_clip_shapes(), 1)
    torch.save({"epoch": 3, "name": "tiny", "state_dict": state}, folder / "HPS_v2.1_compressed.pt")
    torch.save({"state_dict": weights(open_clip_shapes(), 2)}, folder / "HPS_v2_compressed.pt")
    return folder


@pytest.fixture(scope="module")
def reward(folder: Path) -> VisionReward:
    reward = load_reward("hpsv2", checkpoint=folder)
    assert isinstance(reward, VisionReward)
    return reward


def test_scores_are_those_of_the_original(reward: VisionReward) -> None:
    scores = reward(pictures(), PROMPTS)
    assert scores.tolist() == pytest.approx(golden("hpsv2")["scores"], abs=1e-4)
    assert len({round(score, 4) for score in scores.tolist()}) == len(PROMPTS)


def test_scores_without_antialias_are_those_under_older_torchvision(folder: Path) -> None:
    scores = load_reward("hpsv2", checkpoint=folder, antialias=False)(pictures(), PROMPTS)
    assert scores.tolist() == pytest.approx(golden("hpsv2")["scores_without_antialias"], abs=1e-4)


def test_pixels_are_those_of_the_original() -> None:
    expected = np.load(GOLDENS / "letterbox.npz")
    for name, picture in zip(expected.files, pictures(), strict=True):
        pixels = normalised(Letterbox(28).of_picture(picture)[None])[0]
        assert np.abs(pixels.numpy() - expected[name]).max() < 2e-6


def test_tokens_are_those_of_the_original(reward: VisionReward) -> None:
    ids, ends = reward.network.clip.tokens([clean(prompt) for prompt in PROMPTS])  # type: ignore[attr-defined]
    found = [row[: end + 1].tolist() for row, end in zip(ids, ends, strict=True)]
    assert found == golden("hpsv2")["ids"]


def test_names_and_shapes_of_the_full_size_checkpoint() -> None:
    shapes = open_clip_shapes(VIT_H_14)
    listed = "\n".join(sorted(f"{name} {shape}" for name, shape in shapes.items()))
    assert {"count": len(shapes), "sha256": hashlib.sha256(listed.encode()).hexdigest()} == golden("hpsv2")["full"]
    made = {
        new: tuple(tensor.shape)
        for name, shape in shapes.items()
        for new, tensor in renamed(name, torch.empty(shape, device="meta"))
    }
    assert made == {name: tuple(weight.shape) for name, weight in build(VIT_H_14).named_parameters()}


def test_it_keeps_the_contract(reward: VisionReward) -> None:
    check_reward(reward, differentiable=True)


def test_variants_are_different_weights(folder: Path) -> None:
    first = load_reward("hpsv2:v2.0", checkpoint=folder)(pictures()[:1], PROMPTS[:1])
    second = load_reward("hpsv2:v2.1", checkpoint=folder)(pictures()[:1], PROMPTS[:1])
    assert abs(first - second) > 1e-3
    with pytest.raises(RewardError, match=r"Expected hpsv2:v2\.1 or hpsv2:v2\.0"):
        load_reward("hpsv2:v3", checkpoint=folder)


def test_a_foreign_checkpoint_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    write_clip_tokenizer(tmp_path)
    with pytest.raises(RewardError, match=r"no HPS_v2\.1_compressed\.pt"):
        load_reward("hpsv2", checkpoint=tmp_path)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "HPS_v2.1_compressed.pt")
    with pytest.raises(RewardError, match=r"gives 'logit_scale' as nothing; expected \(\)"):
        load_reward("hpsv2", checkpoint=tmp_path)
    (tmp_path / "HPS_v2.1_compressed.pt").write_bytes(b"no weights")
    with pytest.raises(RewardError, match="cannot be read as plain tensors"):
        load_reward("hpsv2", checkpoint=tmp_path)
