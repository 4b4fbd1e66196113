"""Checkpoints in the published layout: what is read, what is merged, what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rewards.errors import CheckpointError
from rewards.llava.families import load_base
from rewards.llava.official import RewardConfig, apply, is_head, read_official, still_initial
from tests.rewards.llava.cases import GOLDENS, Library

LORA = "lora/adapter_model.bin"
HEAD = "pytorch_model.bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of one's own: Phi, Bradley-Terry, SkipCA."""
    into = tmp_path / "bt_ca"
    shutil.copytree(GOLDENS / "phi3v/bt_ca", into)
    return into


def change(path: Path, how: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Rewrite a torch file."""
    torch.save(how(torch.load(path, weights_only=True)), path)


def merged(folder: Path) -> dict[str, Tensor]:
    """The base model's parameters after the checkpoint."""
    backbone = load_base(GOLDENS / "phi3v/base").backbone
    apply(read_official(folder), backbone)
    assert isinstance(backbone, nn.Module)
    return dict(backbone.named_parameters())


def test_what_a_checkpoint_says(folder: Path) -> None:
    checkpoint = read_official(folder)
    assert checkpoint.family.name == "phi3v"
    assert checkpoint.settings == RewardConfig(True, 0.1, False, 1)
    assert checkpoint.scale == 8 / 4
    assert len(checkpoint.lora) == 3 * 4
    assert sorted(checkpoint.head) == [
        "W_k.weight",
        "W_q.weight",
        "W_v.weight",
        "ca_layernorm.weight",
        "value_head.weight",
    ]
    assert len(checkpoint.projector) == 4
    assert not checkpoint.full


def test_matrices_are_merged(folder: Path) -> None:
    """W + alpha / r · B A, for one matrix by hand; the projector is replaced; all else stays."""
    before = load_base(GOLDENS / "phi3v/base").backbone
    assert isinstance(before, nn.Module)
    old, new = dict(before.named_parameters()), merged(folder)
    pairs = torch.load(folder / LORA, weights_only=True)
    name = "model.layers.2.mlp.down_proj"
    change = 2.0 * pairs[f"{name}.lora_B.weight"] @ pairs[f"{name}.lora_A.weight"]
    torch.testing.assert_close(new[f"{name}.weight"], old[f"{name}.weight"] + change)
    projector = "model.vision_embed_tokens.img_projection.0.weight"
    assert torch.equal(new[projector], torch.load(folder / HEAD, weights_only=True)[projector])
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    adapted = {f"{name}.weight" for name in read_official(folder).lora}
    assert moved - adapted <= {name for name in old if ".img_projection." in name}


@pytest.mark.parametrize("prefix", ["base_model.model.", ""])
@pytest.mark.parametrize("adapter", [".default", ""])
def test_names_that_peft_writes(folder: Path, prefix: str, adapter: str) -> None:
    expected = merged(folder)

    def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {prefix + name.replace(".weight", f"{adapter}.weight"): tensor for name, tensor in state.items()}

    change(folder / LORA, renamed)
    change(folder / HEAD, lambda state: {prefix + name: tensor for name, tensor in state.items()})
    ours = merged(folder)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    assert "value_head.weight" in read_official(folder).head


@pytest.mark.parametrize(
    ("adapter", "old", "new"),
    [
        ("qwen/bt", "model.layers.", "model.language_model.layers."),
        ("qwen/bt", "visual.", "model.visual."),
        ("llava/bt", "language_model.model.layers.", "model.language_model.layers."),
        ("llava/bt", "multi_modal_projector.", "model.multi_modal_projector."),
    ],
)
def test_names_of_newer_releases(tmp_path: Path, adapter: str, old: str, new: str) -> None:
    into = tmp_path / "newer"
    shutil.copytree(GOLDENS / adapter, into)

    def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {new + name.removeprefix(old) if name.startswith(old) else name: state[name] for name in state}

    change(into / LORA, renamed)
    change(into / HEAD, renamed)
    expected, ours = read_official(GOLDENS / adapter), read_official(into)
    assert ours.lora.keys() == expected.lora.keys()
    assert ours.projector.keys() == expected.projector.keys()


def test_safetensors_do_as_well(folder: Path) -> None:
    from safetensors.torch import save_file

    expected = merged(folder)
    save_file(torch.load(folder / LORA, weights_only=True), folder / "lora/adapter_model.safetensors")
    save_file(torch.load(folder / HEAD, weights_only=True), folder / "model.safetensors")
    (folder / LORA).unlink()
    (folder / HEAD).unlink()
    ours = merged(folder)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_a_full_fine_tune_needs_no_lora() -> None:
    checkpoint = read_official(GOLDENS / "phi3v/bt_ca_full")
    assert checkpoint.full
    assert not checkpoint.lora
    assert checkpoint.settings.add_cross_attention
    assert not checkpoint.settings.is_general_preference


def test_which_names_are_the_heads() -> None:
    assert is_head("value_head.weight")
    assert is_head("base_model.model.W_q.weight")
    assert not is_head("lm_head.weight")


def _without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {key: value for key, value in state.items() if name not in key}


def _with(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {**state, name: tensor}


A = "model.layers.0.mlp.down_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("file", "how", "message"),
    [
        (LORA, _without("layers.2.mlp.down_proj"), "no matrices for 'model.layers.2.mlp.down_proj'"),
        (LORA, _without(A), "only one of the two"),
        (LORA, _with(A, torch.zeros(4, 99)), "where the base model has"),
        (LORA, _with(A, torch.full((4, 128), torch.inf)), "not finite"),
        (LORA, _with("model.layers.7.mlp.down_proj.lora_A.weight", torch.zeros(4, 4)), "only one of the two"),
        (HEAD, _without("W_"), "lack SkipCA"),
        (HEAD, _with("value_head.weight", torch.zeros(2, 64)), "says 1 outputs"),
        (HEAD, _with("model.extra.weight", torch.zeros(1)), "which the base model does not have"),
        (HEAD, _without("img_projection.2.bias"), "only part of the projector: .*img_projection.2.bias' is missing"),
        (HEAD, _with("value_head.weight", torch.tensor(1.0)), r"of shape \(\); expected 'value_head.weight'"),
        (HEAD, _with("value_head.weight", torch.zeros(0, 64)), "expected at least one floating-point number"),
        (HEAD, _with("W_q.weight", torch.zeros(64)), r"is \(64,\); expected shape \(64, 64\)"),
        (HEAD, _with("ca_layernorm.weight", torch.ones(64, dtype=torch.int8)), "torch.int8; expected at least one"),
        (HEAD, lambda state: {1: torch.ones(2)}, "more than named tensors"),
        (LORA, _with(A, torch.zeros(3, 128)), r"\(3, 128\) and \(64, 4\) .*expected \(r, in\) and \(out, r\)"),
        (LORA, _with(A, torch.zeros(())), r"expected \(r, in\)"),
        (HEAD, lambda state: {key: value for key, value in state.items() if not is_head(key)}, "no reward head"),
    ],
)
def test_damaged_weights(
    folder: Path, file: str, how: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    change(folder / file, how)
    with pytest.raises(CheckpointError, match=message):
        merged(folder)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("reward_config.yaml", "add_cross_attention: true\n", "general_preference_tau"),
        ("reward_config.yaml", "add_cross_attention: yes please\n", "neither true nor false"),
        ("reward_config.yaml", "add_cross_attention: true\ngeneral_preference_tau: 0\n", "temperature 0, which is not"),
        ("reward_config.yaml", "add_cross_attention: true\ngeneral_preference_tau: nan\n", "temperature nan"),
        (
            "reward_config.yaml",
            "add_cross_attention: true\ngeneral_preference_tau: 0.1\nis_general_preference: false\n"
            "value_head_dim: 1\nskipca_mode: offical\n",
            "skipca_mode 'offical', which is neither masked nor official",
        ),
        ("lora/adapter_config.json", json.dumps({"r": 4, "target_modules": ["o_proj"]}), "lora_alpha None, r 4"),
        ("lora/adapter_config.json", json.dumps({"lora_alpha": 8, "r": 0, "target_modules": ["x"]}), "r 0 and"),
        ("lora/adapter_config.json", json.dumps({"lora_alpha": 8, "r": 4, "target_modules": 1}), "target_modules 1"),
        ("config.json", json.dumps({"model_type": ["phi3_v"]}), "model_type"),
        ("config.json", json.dumps({"model_type": "phi3_v"}), "describes no model that can be built .*img_processor"),
        ("lora/adapter_config.json", json.dumps({"use_dora": True}), "use_dora"),
        ("config.json", json.dumps({"model_type": "bert"}), "model_type 'bert'"),
    ],
)
def test_damaged_settings(folder: Path, file: str, text: str, message: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_official(folder)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", r"no config\.json"),
        ("pytorch_model.bin", "no weights"),
        ("lora/adapter_config.json", r"no adapter_config\.json"),
        (LORA, r"no adapter_model\.bin"),
    ],
)
def test_missing_files(folder: Path, file: str, message: str) -> None:
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=message):
        read_official(folder)


def test_settings_that_are_no_text(folder: Path) -> None:
    (folder / "reward_config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"reward_config\.yaml is damaged"):
        read_official(folder)


def test_objects_are_not_unpickled(folder: Path) -> None:
    """Nor is anybody told how to have them unpickled after all."""
    torch.save({"value_head.weight": Path()}, folder / HEAD)
    with pytest.raises(CheckpointError, match="holds objects, which are never loaded") as refused:
        read_official(folder)
    assert "weights_only" not in str(refused.value)


def test_a_missing_lora_folder(folder: Path) -> None:
    """Two published training modes forget to write it."""
    shutil.rmtree(folder / "lora")
    with pytest.raises(CheckpointError, match="no lora/"):
        read_official(folder)


def test_another_base_model(library: Library) -> None:
    checkpoint = read_official(GOLDENS / "llava/bt")
    with pytest.raises(CheckpointError, match="check the base model"):
        apply(checkpoint, load_base(GOLDENS / "phi3v/base").backbone)


def test_parts_that_training_did_not_move(folder: Path) -> None:
    backbone = load_base(GOLDENS / "phi3v/base").backbone
    assert still_initial(read_official(folder), backbone) == []
    base = dict(backbone.named_parameters())  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)

    def reset(state: dict[str, Tensor]) -> dict[str, Tensor]:
        drawn = {
            name: torch.randn(state[name].shape, generator=generator) / 65 for name in state if state[name].ndim == 2
        }
        return {name: base[name] if name in base else drawn.get(name, torch.ones(64)) for name in state}

    change(folder / HEAD, lambda state: {name: tensor.bfloat16() for name, tensor in reset(state).items()})
    assert still_initial(read_official(folder), backbone) == ["projector", "SkipCA norm", "SkipCA", "value head"]
    change(folder / HEAD, lambda state: {**state, "W_k.weight": state["W_k.weight"] * 1.1})
    assert "SkipCA" not in still_initial(read_official(folder), backbone)


def test_a_head_whose_norm_has_moved_was_trained_however_little(folder: Path) -> None:
    """The values of a head that was trained for some steps are spread about as when they were drawn."""

    def short(state: dict[str, Tensor]) -> dict[str, Tensor]:
        drawn = torch.randn(1, 64, generator=torch.Generator().manual_seed(0)) / 65
        return {**state, "value_head.weight": drawn, "ca_layernorm.weight": torch.full((64,), 1.01)}

    change(folder / HEAD, short)
    assert still_initial(read_official(folder)) == []
    change(folder / HEAD, lambda state: {**state, "ca_layernorm.weight": torch.ones(64)})
    assert still_initial(read_official(folder)) == ["SkipCA norm", "value head"]
