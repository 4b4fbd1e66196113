"""What `load_reward` refuses, and what it warns of, on checkpoints in the published layout."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewards import load_reward
from rewards.errors import CheckpointError, RewardError
from rewards.llava.families import load_base
from tests.rewards.llava.cases import GOLDENS, picture

BASE = GOLDENS / "phi3v/base"
HEAD = "pytorch_model.bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of one's own: Phi, Bradley-Terry, SkipCA."""
    into = tmp_path / "bt_ca"
    shutil.copytree(GOLDENS / "phi3v/bt_ca", into)
    return into


def load(folder: Path | str, **options: Any) -> Any:
    return load_reward("llava-reward", checkpoint=folder, **{"base": BASE, "device": "cpu", **options})


def change(path: Path, how: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    torch.save(how(torch.load(path, weights_only=True)), path)


def test_another_backbone(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"trained on phi3v.* is llava_next; .*Phi-3\.5-vision-instruct"):
        load(folder, base=GOLDENS / "llava/base")


def test_a_missing_lora_folder(folder: Path) -> None:
    shutil.rmtree(folder / "lora")
    with pytest.raises(CheckpointError, match="no lora/"):
        load(folder)


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_truncated_file(folder: Path, keep: int) -> None:
    path = folder / HEAD
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        CheckpointError, match=r"truncated or damaged .*copy it again|holds objects|copy the folder again"
    ):
        load(folder)


def test_a_truncated_base_model(folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        load(folder, base=base)


@pytest.mark.parametrize(
    ("file", "name"),
    [("config.json", "rms_norm_eps"), ("config.json", "img_processor"), ("preprocessor_config.json", "image_mean")],
)
def test_settings_of_a_base_model_that_make_no_sense(folder: Path, tmp_path: Path, file: str, name: str) -> None:
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    settings = json.loads((base / file).read_text())
    (base / file).write_text(json.dumps({**settings, name: -1}))
    with pytest.raises(CheckpointError, match=rf"{file} describes no model that can be built"):
        load(folder, base=base)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda state: {name: state[name] for name in state if name != "ca_layernorm.weight"}, "is nothing"),
        (lambda state: {**state, "W_k.weight": torch.zeros(64, 32)}, r"is \(64, 32\); expected shape \(64, 64\)"),
        (lambda state: {**state, "W_k.weight": state["W_k.weight"] * torch.nan}, "not finite"),
        (lambda state: {name: state[name] * torch.inf if "img_proj" in name else state[name] for name in state},
         "not finite"),
        (lambda state: {**state, "prompt_head.weight": torch.zeros(1, 64)}, "prompt_head"),
        (lambda state: {**state, "value_head.weight": state["value_head.weight"][:, :32]},
         r"expected shape \(32, 32\)"),
    ],
)  # fmt: skip
def test_a_damaged_head(folder: Path, how: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str) -> None:
    change(folder / HEAD, how)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_a_head_of_another_width(folder: Path) -> None:
    """All of one piece, but for a wider model."""
    shutil.copytree(GOLDENS / "phi3v/gpm2", folder, dirs_exist_ok=True)
    change(folder / HEAD, lambda state: {**state, "value_head.weight": torch.zeros(2, 96)})
    with pytest.raises(CheckpointError, match="96 wide, the base model 64"):
        load(folder)


def test_a_vector_of_odd_length(folder: Path) -> None:
    change(folder / HEAD, lambda state: {**state, "value_head.weight": torch.zeros(3, 64)})
    settings = (
        "add_cross_attention: true\ngeneral_preference_tau: 0.1\nis_general_preference: true\nvalue_head_dim: 3\n"
    )
    (folder / "reward_config.yaml").write_text(settings)
    with pytest.raises(CheckpointError, match="3 outputs; expected one, or an even number"):
        load(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skipca": "paper"}, "expected 'masked' or 'official'"),
        ({"pooling": "max"}, "expected 'eos' or 'mean'"),
        ({"layer": 7}, "layer 7"),
        ({"num_crops": 0}, "num_crops 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"device": "nowhere"}, "Device 'nowhere'"),
        ({"base": "no/such-model"}, "needs its base model 'no/such-model', which is .*pass its folder as base="),
        ({"base": "/no/such/folder"}, "needs its base model '/no/such/folder'"),
        ({"crops": 3}, "num_crops"),
    ],
)
def test_options_that_do_not_exist(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        load(folder, **options)


@pytest.mark.parametrize("options", [{"skipca": "masked"}, {"num_crops": 4}, {"layer": 0}, {"pooling": "mean"}])
def test_options_of_the_published_layout_are_not_the_embedded_rewards(options: dict[str, Any]) -> None:
    with pytest.raises(RewardError, match=f"Got {next(iter(options))}, which only"):
        load_reward("llava-reward", **options)


@pytest.mark.parametrize("layer", [32, 3])
def test_the_published_number_of_the_last_layer(folder: Path, layer: int) -> None:
    """The published code calls it 32 in models of any depth; this one has three layers."""
    image = picture("tiny")
    assert torch.equal(load(folder, layer=layer, num_crops=1)([image], ["a cat"]),
                       load(folder, num_crops=1)([image], ["a cat"]))  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"base": None}])
def test_no_folder_at_all(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"There is no folder '.*/nowhere'; expected a checkpoint's folder"):
        load(tmp_path / "nowhere", **options)


def test_neither_layout(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no reward\.json"):
        load(tmp_path, base=None)


def test_a_checkpoint_that_training_did_not_move(folder: Path) -> None:
    base: Any = load_base(BASE).backbone
    weights = dict(base.named_parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(folder)
    change(folder / HEAD, lambda state: {name: weights.get(name, state[name]) for name in state})
    with pytest.warns(UserWarning, match="did not move the projector of this checkpoint, which still holds initial"):
        load(folder)


def test_the_revision_follows_the_checkpoint(folder: Path) -> None:
    before, again = load(folder).revision, load(folder).revision
    change(folder / HEAD, lambda state: {**state, "value_head.weight": state["value_head.weight"] * 2})
    assert before == again != load(folder).revision


def test_the_revision_follows_the_weights_of_the_base_model(folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(BASE, tmp_path / "base"))
    before = load(folder, base=base).revision
    assert before == load(folder).revision  # wherever it lies
    (path,) = base.glob("*.safetensors")
    state = load_file(path)
    name = next(name for name in state if name.endswith("embed_tokens.weight"))
    save_file({**state, name: state[name] + 1e-3}, path)
    assert load(folder, base=base).revision != before


@pytest.mark.parametrize(
    "option",
    [{"num_crops": 2}, {"skipca": "official"}, {"pooling": "mean"}, {"layer": 0}, {"dtype": torch.bfloat16}],
)
def test_the_revision_follows_every_option_that_changes_a_score(option: dict[str, Any], folder: Path) -> None:
    assert load(folder).revision == load(folder, batch_size=3).revision != load(folder, **option).revision


def test_where_companions_count_the_batch_size_is_part_of_the_revision(folder: Path) -> None:
    two, three = (load(folder, skipca="official", batch_size=size).revision for size in (2, 3))
    assert two != three
