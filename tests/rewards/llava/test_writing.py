"""Checkpoints written in the published layout, and told from their files."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from rewards import load_reward
from rewards.errors import CheckpointError
from rewards.llava.checkpoint import EMBEDDED
from rewards.llava.describe import describe
from rewards.llava.official import read_official
from rewards.llava.writing import save_official
from tests.rewards.llava.cases import GOLDENS, picture

CHECKPOINTS = ["phi3v/bt_ca", "phi3v/gpm4_ca", "phi3v/cls", "qwen/bt_ca", "llava/gpm2"]


def half(name: str, into: Path) -> Path:
    """A recorded checkpoint in bfloat16, which the published trainer stores."""
    shutil.copytree(GOLDENS / name, into)
    for path in (into / "pytorch_model.bin", into / "lora/adapter_model.bin"):
        state = torch.load(path, weights_only=True)
        torch.save({key: tensor.bfloat16() for key, tensor in state.items()}, path)
    return into


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_names_shapes_types_and_settings_survive(name: str, tmp_path: Path) -> None:
    source, copy = half(name, tmp_path / "source"), tmp_path / "copy"
    save_official(copy, read_official(source), base=source, base_name="owner/model")
    for file in ("pytorch_model.bin", "lora/adapter_model.bin"):
        before, after = (torch.load(folder / file, weights_only=True) for folder in (source, copy))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) and after[key].dtype == torch.bfloat16 for key in before)
    settings, again = (folder / "reward_config.yaml" for folder in (source, copy))
    assert read_official(copy).settings == read_official(source).settings
    assert [line.split(":")[0] for line in settings.read_text().splitlines() if line] == [
        line.split(":")[0] for line in again.read_text().splitlines()
    ]
    before, after = (json.loads((folder / "lora/adapter_config.json").read_text()) for folder in (source, copy))
    assert after["base_model_name_or_path"] == "owner/model"
    for key in ("r", "lora_alpha", "peft_type", "init_lora_weights", "bias", "lora_dropout"):
        assert before[key] == after[key]
    assert sorted(before["target_modules"]) == sorted(after["target_modules"])
    assert (source / "config.json").read_bytes() == (copy / "config.json").read_bytes()


def test_peft_reads_the_adapter_settings(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    save_official(tmp_path, read_official(GOLDENS / "phi3v/bt_ca"), base=GOLDENS / "phi3v/base")
    config = peft.LoraConfig.from_pretrained(tmp_path / "lora")
    assert (config.r, config.lora_alpha) == (4, 8)


def test_safetensors_score_the_same(tmp_path: Path) -> None:
    save_official(tmp_path, read_official(GOLDENS / "phi3v/bt_ca"), base=GOLDENS / "phi3v/base", safetensors=True)
    assert not list(tmp_path.rglob("*.bin"))
    first, second = (
        load_reward("llava-reward", checkpoint=folder, base=GOLDENS / "phi3v/base", device="cpu", num_crops=1)
        for folder in (GOLDENS / "phi3v/bt_ca", tmp_path)
    )
    assert torch.equal(first([picture("tiny")], ["a cat"]), second([picture("tiny")], ["a cat"]))


def test_a_full_fine_tune_has_no_such_layout(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no weights to write; copy its folder instead"):
        save_official(tmp_path, read_official(GOLDENS / "phi3v/bt_ca_full"), base=GOLDENS / "phi3v/base")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        save_official(tmp_path, read_official(GOLDENS / "phi3v/bt_ca"), base=tmp_path)


def test_what_a_general_preference_checkpoint_is() -> None:
    found = describe(GOLDENS / "phi3v/gpm4_ca")
    assert (found.layout, found.backbone, found.absolute, found.skipca) == ("published, LoRA", "phi3v", False, True)
    text = str(found)
    assert "general preference, 4 outputs from 64" in text
    assert "rank 4, scale 2, 12 matrices, 4 projector tensors" in text
    assert "phi3v/base" in text


def test_what_other_checkpoints_are(tmp_path: Path) -> None:
    assert describe(GOLDENS / "phi3v/bt_ca_full").layout == "published, full fine-tune"
    assert not describe(GOLDENS / "llava/bt").skipca
    embedded = describe(EMBEDDED)
    assert (embedded.layout, embedded.absolute, embedded.tau) == ("embedded", True, 0.1)
    folder = half("phi3v/bt_ca", tmp_path / "started")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({**state, "ca_layernorm.weight": torch.ones(64)}, folder / "pytorch_model.bin")
    assert describe(folder).untouched == ("SkipCA norm",)
    with pytest.raises(CheckpointError, match="no reward head"):
        describe(GOLDENS / "phi3v/base")


def test_the_embedded_reward_by_its_name_and_others_by_their_perspective(tmp_path: Path) -> None:
    assert describe("llava-reward").folder == EMBEDDED
    shutil.copytree(GOLDENS / "phi3v/cls", tmp_path / "safety/phi")
    assert describe("llava-reward:safety", tmp_path).folder == tmp_path / "safety/phi"


@pytest.mark.parametrize(
    ("name", "message"),
    [("W_q.weight", "'W_q.weight' in .* is nothing"), ("value_head.weight", r"expected 'value_head\.weight'")],
)
def test_a_checkpoint_in_part_is_not_described(tmp_path: Path, name: str, message: str) -> None:
    folder = half("phi3v/bt_ca", tmp_path / "part")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({key: state[key] for key in state if key != name}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=message):
        describe(folder)
