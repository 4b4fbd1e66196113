"""ImageReward against the original implementation, github.com/zai-org/ImageReward at c1392c6."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch

from rewards import RewardError, load_reward
from rewards.imagereward import build, renamed
from rewards.testing import check_reward
from rewards.vision import VisionReward
from tests.rewards.standard.tiny import (
    MED,
    PROMPTS,
    golden,
    imagereward_shapes,
    noise,
    pictures,
    weights,
    write_bert_tokenizer,
)

FULL = {
    **MED, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "vocab_size": 30524, "max_position_embeddings": 512,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagereward")
    write_bert_tokenizer(folder)
    (folder / "med_config.json").write_text(json.dumps(MED))
    torch.save(weights(imagereward_shapes(), 5), folder / "ImageReward.pt")
    return folder


@pytest.fixture(scope="module")
def reward(folder: Path) -> VisionReward:
    reward = load_reward("imagereward", checkpoint=folder)
    assert isinstance(reward, VisionReward)
    return reward


def test_scores_are_those_of_the_original(reward: VisionReward) -> None:
    assert reward(pictures(), PROMPTS).tolist() == pytest.approx(golden("imagereward")["scores"], abs=1e-4)


def test_tokens_are_those_of_the_original(reward: VisionReward) -> None:
    ids, there = reward.network.text(PROMPTS).unbind(1)
    found = [row[mask.bool()].tolist() for row, mask in zip(ids, there, strict=True)]
    assert found == golden("imagereward")["ids"]
    assert max(map(len, found)) == 35  # the longest prompt is cut there


def test_names_and_shapes_of_the_full_size_checkpoint() -> None:
    shapes = imagereward_shapes(FULL, width=1024, layers=24, patches=196)
    weighed = {name: shape for name, shape in shapes.items() if not name.endswith("position_ids")}
    listed = "\n".join(sorted(f"{name} {shape}" for name, shape in weighed.items()))
    digest = hashlib.sha256(listed.encode()).hexdigest()
    assert {"count": len(weighed), "sha256": digest} == golden("imagereward")["full"]
    pairs = (renamed(name, torch.empty(shape, device="meta")) for name, shape in shapes.items())
    state = dict(pair for pair in pairs if pair)
    network = build(state, FULL, Path("ImageReward.pt"))
    expected = {name: weight.shape for name, weight in network.named_parameters()}
    assert {name: tensor.shape for name, tensor in state.items()} == expected
    assert network.vision.config.num_attention_heads == 16  # as BLIP's "large" has it
    assert network.vision.config.image_size == 224


def test_it_keeps_the_contract(reward: VisionReward) -> None:
    check_reward(reward, differentiable=True)


def test_scores_with_gradients_are_near_those_without(reward: VisionReward) -> None:
    pixels = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    pixels = (pixels * 255).round() / 255
    exact = reward(pixels, PROMPTS[:2])
    assert torch.allclose(reward(pixels.clone().requires_grad_(), PROMPTS[:2]).detach(), exact, atol=1e-2)


def test_odd_pictures_are_scored(reward: VisionReward) -> None:
    scores = reward([noise(40, 30, 7).convert("L"), noise(1, 1, 2), noise(4000, 10, 1)], ["a cat"] * 3)
    assert torch.allclose(scores[0], reward([noise(40, 30, 7).convert("L").convert("RGB")], ["a cat"]))


def test_a_foreign_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "ImageReward.pt")
    with pytest.raises(RewardError, match="holds no BLIP"):
        load_reward("imagereward", checkpoint=tmp_path, tokenizer=folder)
    cut = {name: tensor for name, tensor in weights(imagereward_shapes(), 5).items() if not re.search("key.bias", name)}
    torch.save(cut, tmp_path / "other.pt")
    (tmp_path / "med_config.json").write_text(json.dumps(MED))
    with pytest.raises(RewardError, match=r"self\.key\.bias' as nothing; expected \(32,\)"):
        load_reward("imagereward", checkpoint=tmp_path / "other.pt", tokenizer=folder)
