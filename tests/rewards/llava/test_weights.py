"""Weights from disk: shards, torch files, names, devices, and what is refused."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rewards.errors import CheckpointError, RewardError
from rewards.llava.families import family_of, load_base, resolve
from rewards.llava.weights import empty, fill, fingerprint, read_json, tensors, weight_files
from tests.rewards.llava.cases import GOLDENS

BASE = GOLDENS / "phi3v/base"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base model of one's own."""
    into = tmp_path / "base"
    shutil.copytree(BASE, into)
    return into


def stored() -> dict[str, Tensor]:
    return load_file(BASE / "model.safetensors")


def parameters(folder: Path) -> dict[str, Tensor]:
    module = load_base(folder).backbone
    assert isinstance(module, nn.Module)
    return dict(module.named_parameters())


def same(ours: dict[str, Tensor]) -> bool:
    """Whether these are the base model's own values."""
    expected = stored()
    return all(torch.equal(value, expected[name]) for name, value in ours.items())


def test_the_fingerprint_follows_config_and_weights_but_not_the_place(folder: Path) -> None:
    before = fingerprint(folder)
    assert before == fingerprint(BASE)
    assert len(before) == 12
    (folder / "notes.txt").write_text("nothing of the model")
    assert fingerprint(folder) == before
    state = stored()
    next(iter(state.values())).flatten()[0] += 1
    save_file(state, folder / "model.safetensors")
    other = fingerprint(folder)
    (folder / "config.json").write_text("{}")
    assert len({before, other, fingerprint(folder)}) == 3
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        fingerprint(folder)


def test_one_file() -> None:
    assert same(parameters(BASE))


def test_shards(folder: Path) -> None:
    state = stored()
    names = sorted(state)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({name: state[name] for name in part}, folder / shard)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    assert same(parameters(folder))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00002-of-00002\.safetensors"):
        load_base(folder)


def test_a_torch_file_of_plain_tensors(folder: Path) -> None:
    torch.save(stored(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert same(parameters(folder))


class Trap:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self.path, "sprung"))


def test_nothing_but_tensors_is_unpickled(folder: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Trap(sprung)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="plain tensors"):
        load_base(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    with pytest.raises(CheckpointError, match="plain tensors"):
        load_base(folder)
    assert not sprung.exists()


def test_names_of_the_embedding_that_a_file_may_hold(folder: Path) -> None:
    """The image embedder's copy alone, or both."""
    state, copy = stored(), "model.vision_embed_tokens.wte.weight"
    state[copy] = state.pop("model.embed_tokens.weight")
    save_file(state, folder / "model.safetensors")
    assert same(parameters(folder))
    save_file(state | {"model.embed_tokens.weight": state[copy].clone()}, folder / "model.safetensors")
    assert same(parameters(folder))


def test_dtype(folder: Path) -> None:
    module = load_base(folder, dtype=torch.bfloat16).backbone
    assert isinstance(module, nn.Module)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}


def test_truncated_files(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_base(folder)
    (folder / "model.safetensors").unlink()
    torch.save(stored(), folder / "pytorch_model.bin")
    whole = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_base(folder)


def test_missing_unknown_and_misshapen_weights(folder: Path) -> None:
    state = stored()
    del state["model.layers.1.mlp.down_proj.weight"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 of \d+ weights are missing .* 'model.layers.1.mlp.down_proj.weight'"):
        load_base(folder)
    save_file(stored() | {"model.layers.9.norm": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"'model.layers.9.norm', which this backbone does not have"):
        load_base(folder)
    save_file(stored() | {"model.norm.weight": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"shape \(3,\); expected \(64,\)"):
        load_base(folder)


def test_files_that_are_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        resolve(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no folder 'nowhere'"):
        resolve("nowhere")
    with pytest.raises(CheckpointError, match="hub gave no such model"):
        resolve("nobody/nothing")  # tests have no network
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        load_base(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        load_base(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        load_base(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="expected a JSON object"):
        load_base(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_base(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "idefics3"}, "model_type 'idefics3'"),
        ({"rope_scaling": {"type": "yarn"}}, "expected type 'su'"),
        ({"embd_layer": {"hd_transform_order": "glb_sub"}}, "order 'sub_glb'"),
    ],
)
def test_configurations_that_are_refused(folder: Path, change: dict[str, object], message: str) -> None:
    config = read_json(folder / "config.json") | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_base(folder)


LLAVA = GOLDENS / "llava/base"


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("text_config", {"model_type": "mistral"}, "mistral"),
        ("text_config", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "type 'linear'"),
        ("", {"vision_feature_layer": [-2, -5]}, "one number"),
        ("", {"vision_feature_select_strategy": "full"}, "expected 'default'"),
    ],
)
def test_llavas_that_are_refused(tmp_path: Path, part: str, change: dict[str, object], message: str) -> None:
    config = read_json(LLAVA / "config.json")
    (config[part] if part else config).update(change)
    shutil.copytree(LLAVA, tmp_path / "llava")
    (tmp_path / "llava/config.json").write_text(json.dumps(config))
    with pytest.raises(RewardError, match=message):
        load_base(tmp_path / "llava")


def test_a_damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer in .* is damaged"):
        load_base(folder)


def module() -> tuple[nn.Module, list[Path]]:
    config = read_json(BASE / "config.json")
    return empty(lambda: family_of(config).build(config)), weight_files(BASE)


def test_a_device_map_places_by_the_longest_name() -> None:
    """The meta device stands for a second one: what lies there has no values."""
    config = read_json(BASE / "config.json")
    target, files = module()
    places = {"": "cpu", "model.layers": "meta", "model.layers.1": "cpu"}
    fill(target, files, family_of(config).rename(config), device_map=places)
    away = {name for name, parameter in target.named_parameters() if parameter.is_meta}
    assert away == {
        name for name, _ in target.named_parameters() if name.startswith(("model.layers.0.", "model.layers.2."))
    }


def test_a_device_map_can_be_worked_out() -> None:
    config = read_json(BASE / "config.json")
    target, files = module()
    fill(target, files, family_of(config).rename(config), device_map="auto")
    assert same(dict(target.named_parameters())) or torch.cuda.is_available()


@pytest.mark.parametrize(
    ("places", "message"), [({"model.layers": "cpu"}, "names no device"), ("best", "'auto', 'balanced'")]
)
def test_device_maps_that_are_refused(places: str | dict[str, str], message: str) -> None:
    config = read_json(BASE / "config.json")
    with pytest.raises(CheckpointError, match=message):
        fill(*module(), family_of(config).rename(config), device_map=places)


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1), "b": torch.ones(1)}, tmp_path / "x.safetensors")
    assert [name for name, _ in tensors(tmp_path / "x.safetensors", lambda name: name == "b")] == ["b"]
