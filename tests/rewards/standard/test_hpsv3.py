"""HPSv3 against the original implementation, github.com/MizzenAI/HPSv3, in transformers 4.46."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rewards import RewardError, load_reward
from rewards.hpsv3 import QUESTION, HpsV3, backbone_name, head_name
from rewards.testing import check_reward
from tests.rewards.standard.tiny import PROMPTS, golden, noise, pictures, weights
from tests.rewards.standard.tiny_qwen import config, head_shapes, state, write_qwen_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen2_vl")
    write_qwen_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(config("qwen2_vl")))
    (folder / "preprocessor_config.json").write_text(json.dumps({"min_pixels": 3136, "max_pixels": 12845056}))
    full = state("qwen2_vl", 13) | weights(head_shapes(), 14)
    save_file(full, folder / "HPSv3.safetensors")
    save_file({older(name): part for name, part in full.items()}, folder / "older.safetensors")
    return folder


def older(name: str) -> str:
    """A name as transformers before 4.52 had it."""
    return name.removeprefix("model.") if ".visual." in name else name.replace("model.language_model.", "model.")


def test_scores_are_those_of_the_original(base: Path) -> None:
    reward = load_reward("hpsv3", checkpoint=base, base=base)
    expected = golden("hpsv3")["scores"]
    assert reward(pictures()[:4], PROMPTS[:4]).tolist() == pytest.approx(expected[:4], abs=1e-4)
    older_names = load_reward("hpsv3", checkpoint=base / "older.safetensors", base=base)
    assert older_names(pictures()[4:], PROMPTS[4:]).tolist() == pytest.approx(expected[4:], abs=1e-4)
    assert max(expected) - min(expected) > 0.1  # the tolerance tells them apart


def test_the_question_is_the_one_that_it_was_trained_with() -> None:
    assert hashlib.sha256(QUESTION.encode()).hexdigest() == golden("hpsv3")["question"]


def test_it_keeps_the_contract(base: Path) -> None:
    check_reward(load_reward("hpsv3", checkpoint=base, base=base), differentiable=True, prompts=PROMPTS[:2])


def test_scores_with_gradients_are_near_those_without(base: Path) -> None:
    reward = load_reward("hpsv3", checkpoint=base, base=base)
    pixels = torch.from_numpy(np.array(noise(97, 61, 5))).permute(2, 0, 1)[None] / 255
    exact, smooth = reward(pixels, ["a"]), reward(pixels.clone().requires_grad_(), ["a"]).detach()
    assert abs(exact - smooth) < 2e-3


def test_names_and_shapes_of_the_full_size_checkpoint() -> None:
    from transformers import Qwen2VLConfig

    settings = Qwen2VLConfig(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
        vocab_size=151658, vision_config={"hidden_size": 3584},
        rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]},
    )  # fmt: skip
    with torch.device("meta"):
        network = HpsV3(settings)
    shapes = {name: tuple(part.shape) for name, part in network.named_parameters()}
    assert shapes["rm_head.0.weight"] == (1024, 3584)
    assert shapes["rm_head.3.weight"] == (16, 1024)
    assert shapes["rm_head.5.weight"] == (2, 16)
    assert shapes["model.language_model.embed_tokens.weight"] == (151658, 3584)
    assert shapes["model.visual.merger.mlp.2.weight"] == (3584, 5120)
    for name in shapes:  # old and new names lead to the same place
        if name.startswith("model."):
            assert backbone_name(name) == backbone_name(older(name)) == name.removeprefix("model.")
        else:
            assert head_name(name) == name.removeprefix("rm_head.")
    assert backbone_name("lm_head.weight") is None


def test_a_prompt_with_the_special_token_is_refused(base: Path) -> None:
    with pytest.raises(RewardError, match="where the score is read"):
        load_reward("hpsv3", checkpoint=base, base=base)(pictures()[:1], ["give <|Reward|>"])
