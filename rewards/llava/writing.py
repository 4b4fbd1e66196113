"""Checkpoints written as the published trainer writes them, so that its own code can read them too."""

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor

from rewards.errors import CheckpointError
from rewards.llava.families import family_of, preprocessing
from rewards.llava.official import Official, RewardConfig, is_head
from rewards.llava.weights import read_json, tensors, weight_files

_FROM_BASE = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model", "preprocessor_config.json", "chat_template.json",
)  # fmt: skip


def save_official(
    folder: Path, checkpoint: Official, *, base: Path, base_name: str = "", safetensors: bool = False
) -> None:
    """Write head, projector and low-rank matrices, or after a full fine-tune all weights, into `folder`.

    Args:
        folder: see `official` for the files in it; made if need be.
        checkpoint: what to write, by the backbone's names, which are the published ones; dtypes stay.
        base: folder of the base model; config.json and tokenizer are copied, and after a full fine-tune the weights
            that no reward needs.
        base_name: what the adapter calls its base model; `base` if empty.
        safetensors: write model.safetensors and adapter_model.safetensors, which the published code cannot read,
            instead of the two torch files; a full fine-tune always has the first.

    Raises:
        CheckpointError: nothing to write, as of a full fine-tune that was read, or a base folder without config.json.
    """
    if not (checkpoint.projector if checkpoint.full else checkpoint.lora):
        raise CheckpointError(f"The checkpoint {checkpoint.folder} has no weights to write; copy its folder instead.")
    if not (base / "config.json").is_file():
        raise CheckpointError(f"There is no config.json in {base}; expected the base model's folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint.full:
        _save({**_unneeded(base), **checkpoint.projector, **checkpoint.head}, folder / _SAFE)
    else:
        _save_adapted(folder, checkpoint, base_name or str(base), safetensors=safetensors)
    (folder / "reward_config.yaml").write_text(_yaml(checkpoint.settings), encoding="utf-8")
    for name in _FROM_BASE:
        if (base / name).is_file() and base.resolve() != folder.resolve():
            shutil.copyfile(base / name, folder / name)
    settings = preprocessing(base)
    if checkpoint.full and settings and not (folder / "preprocessor_config.json").is_file():
        (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


_BIN, _SAFE = "pytorch_model.bin", "model.safetensors"


def _save_adapted(folder: Path, checkpoint: Official, base: str, *, safetensors: bool) -> None:
    (folder / "lora").mkdir(exist_ok=True)
    matrices = {
        f"{name}.lora_{half}.weight": matrix
        for name, pair in checkpoint.lora.items()
        for half, matrix in zip("AB", pair, strict=True)
    }
    kind = "safetensors" if safetensors else "bin"
    _save(matrices, folder / f"lora/adapter_model.{kind}")
    _save({**checkpoint.projector, **checkpoint.head}, folder / (_SAFE if safetensors else _BIN))
    (folder / "lora/adapter_config.json").write_text(_adapter(checkpoint, base), encoding="utf-8")


def _unneeded(base: Path) -> dict[str, Tensor]:
    """Weights of the base model that no reward reads, such as its language-model head: other code may ask for them."""
    config = read_json(base / "config.json")
    rename = family_of(config).rename(config)
    return {
        name: tensor
        for path in weight_files(base)
        for name, tensor in tensors(path, lambda name: not is_head(name) and rename(name) is None)
    }


def _save(state: dict[str, Tensor], path: Path) -> None:
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    if path.suffix == ".bin":
        torch.save(state, path)
        return
    from safetensors.torch import save_file

    save_file(state, path)


def _adapter(checkpoint: Official, base: str) -> str:
    rank = len(next(iter(checkpoint.lora.values()))[0])
    alpha = checkpoint.scale * rank
    config = {
        "base_model_name_or_path": base, "bias": "none", "fan_in_fan_out": False, "inference_mode": False,
        "init_lora_weights": "gaussian", "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.05, "peft_type": "LORA", "r": rank, "target_modules": list(checkpoint.targets),
        "task_type": None, "use_dora": False, "use_rslora": False,
    }  # fmt: skip
    return json.dumps(config, indent=2) + "\n"


def _yaml(settings: RewardConfig) -> str:
    mode = f"skipca_mode: {settings.skipca_mode}\n" if settings.skipca_mode else ""
    return (
        f"add_cross_attention: {str(settings.add_cross_attention).lower()}\n"
        f"general_preference_tau: {settings.general_preference_tau}\n"
        f"is_general_preference: {str(settings.is_general_preference).lower()}\n"
        f"value_head_dim: {settings.value_head_dim}\n{mode}"
    )
