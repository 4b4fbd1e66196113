"""Checkpoints of LLaVA-Reward as its published trainer writes them.

    lora/adapter_config.json, lora/adapter_model.bin     low-rank matrices of the language model
    pytorch_model.bin                                    head, SkipCA if any, projector
    reward_config.yaml                                   four settings
    config.json                                          of the base model

or, after a full fine-tune, a model folder whose weights also hold the head. Names may carry peft's prefix and adapter
name, and be those of older or newer releases of transformers. Nothing but plain tensors is ever unpickled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from rewards.errors import CheckpointError
from rewards.llava.backbone import Backbone
from rewards.llava.families import Family, family_of, understood
from rewards.llava.heads import check_head
from rewards.llava.low_rank import plain, read_lora
from rewards.llava.weights import read_json, tensors, usable, weight_files

SETTINGS = "reward_config.yaml"
PROJECTORS = ("img_projection.", "visual.merger.", "multi_modal_projector.")
HEAD_PARTS = ("value_head.", "W_q.", "W_k.", "W_v.", "ca_layernorm.", "prompt_head.")


@dataclass(frozen=True)
class RewardConfig:
    """What reward_config.yaml says; what it leaves out (classification, pooling, layer) the caller must know.

    Attributes:
        add_cross_attention: whether the head has SkipCA.
        general_preference_tau: the temperature tau of all preferences.
        is_general_preference: whether outputs are vectors that only compare.
        value_head_dim: their length; a Bradley-Terry head has one output whatever stands here.
        skipca_mode: "masked" where our trainer says that SkipCA learned from the picture's tokens; the published one
            writes nothing.
    """

    add_cross_attention: bool = False
    general_preference_tau: float = 0.1
    is_general_preference: bool = False
    value_head_dim: int = 1
    skipca_mode: str = ""


@dataclass(frozen=True)
class Official:
    """A checkpoint in memory.

    Attributes:
        folder: where it was read.
        family: of the base model, by config.json.
        settings: of reward_config.yaml.
        head: parameters of the head, by their published names.
        projector: parameters that replace the base model's, by the backbone's names.
        lora: (A, B) by the backbone's names of the matrices they are added to.
        scale: alpha / r.
        targets: names or ends of names of all modules that must have such a pair.
        full: whether the folder holds a whole fine-tuned model.
    """

    folder: Path
    family: Family
    settings: RewardConfig
    head: dict[str, Tensor]
    projector: dict[str, Tensor] = field(default_factory=dict)
    lora: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    scale: float = 1.0
    targets: tuple[str, ...] = ()
    full: bool = False


def read_official(folder: Path) -> Official:
    """The checkpoint in `folder`.

    Raises:
        CheckpointError: a file is missing or damaged, or its parts contradict each other.
    """
    config = read_json(folder / "config.json")
    family = family_of(config)
    adapted = (folder / "lora").is_dir()
    if not adapted and not _is_whole(folder):
        raise CheckpointError(f"There is no lora/ in {folder}; expected the whole folder that the trainer wrote.")
    stored = {
        plain(name): tensor
        for path in weight_files(folder)
        for name, tensor in tensors(path, lambda name: adapted or is_head(name))
    }
    head = {name: tensor for name, tensor in stored.items() if is_head(name)}
    if not head:
        raise CheckpointError(
            f"The weights in {folder} hold no reward head; expected a LLaVA-Reward checkpoint, not a base model."
        )
    check_head(head, folder)
    settings = _settings(folder, head)
    if not adapted:
        return Official(folder, family, settings, head, full=True)
    with understood(folder / "config.json"):
        rename = family.rename(config)
    projector = {
        name: usable(tensor, name, folder)
        for name, tensor in stored.items()
        if not is_head(name) and ".lora_" not in name
    }
    low = read_lora(folder / "lora", rename)
    return Official(folder, family, settings, head, _renamed(projector, rename), low.pairs, low.scale, low.targets)


@torch.no_grad()
def apply(checkpoint: Official, backbone: Backbone, *, projector: bool = True) -> None:
    """Put projector and low-rank matrices into the weights of `backbone`, in place.

    Raises:
        CheckpointError: a matrix is missing, or does not fit the backbone.
    """
    check_fit(checkpoint, backbone, projector=projector)
    weights = dict(cast(nn.Module, backbone).named_parameters())
    for name, tensor in checkpoint.projector.items() if projector else ():
        weights[name].copy_(tensor)
    for name, (down, up) in checkpoint.lora.items():
        weight = weights[f"{name}.weight"]
        change = checkpoint.scale * (up.to(weight.device, torch.float32) @ down.to(weight.device, torch.float32))
        weight.copy_(weight.float() + change)


def check_fit(checkpoint: Official, backbone: Backbone, *, projector: bool = True) -> None:
    """Raise `CheckpointError` if a matrix of `checkpoint` is missing, or does not fit `backbone`."""
    module = cast(nn.Module, backbone)
    weights = dict(module.named_parameters())
    if projector:
        _check_projector(checkpoint, weights)
    for name, (down, up) in checkpoint.lora.items():
        _fits(f"{name}.weight", torch.Size((len(up), down.shape[1])), weights, checkpoint.folder)
    missing = [name for name in _targeted(module, checkpoint.targets) if name not in checkpoint.lora]
    if missing:
        raise CheckpointError(
            f"{checkpoint.folder / 'lora'} has no matrices for {missing[0]!r} ({len(missing)} are missing); copy the "
            "folder again."
        )


def still_initial(checkpoint: Official, backbone: Backbone | None = None) -> list[str]:
    """Parts that a trainer should have moved and that stand where training starts; to be asked before `apply`.

    The published LoRA trainer optimises the low-rank matrices alone, so such a checkpoint is possible and readable.
    Without the backbone nothing is said about the projector.

    Returns:
        Some of "projector" (equal to the base model's), "SkipCA norm" (all ones), "SkipCA" and "value head" (as widely
        spread as normal numbers of deviation 1 / (H + 1), within four standard errors). The last two are a guess, which
        is not made where the norm has moved: a head is trained as a whole, and a short training spreads it little.
    """
    weights = {} if backbone is None else dict(cast(nn.Module, backbone).named_parameters())
    head = checkpoint.head
    norm = head.get("ca_layernorm.weight")
    moved = norm is not None and bool((norm != 1).any())
    found = {
        "projector": bool(checkpoint.projector)
        and not any(name.removesuffix(".weight") in checkpoint.lora for name in checkpoint.projector)
        and all(name in weights and _equal(tensor, weights[name]) for name, tensor in checkpoint.projector.items()),
        "SkipCA norm": norm is not None and not moved,
        "SkipCA": _drawn(head, "W_q", "W_k", "W_v") and not moved,
        "value head": _drawn(head, "value_head") and not moved,
    }
    return [part for part, untouched in found.items() if untouched]


def is_head(name: str) -> bool:
    """Whether a stored name is the head's and not the base model's."""
    return plain(name).startswith(HEAD_PARTS)


def _settings(folder: Path, head: dict[str, Tensor]) -> RewardConfig:
    path = folder / SETTINGS
    outputs = len(head["value_head.weight"]) if "value_head.weight" in head else 1
    inferred = RewardConfig("W_q.weight" in head, 0.1, outputs > 1, outputs)
    if not path.is_file():
        return inferred
    settings = _yaml(path)
    if settings.add_cross_attention != inferred.add_cross_attention:
        raise CheckpointError(
            f"{path} says add_cross_attention: {str(settings.add_cross_attention).lower()}, but the weights in "
            f"{folder} {'lack' if settings.add_cross_attention else 'hold'} SkipCA; copy the folder again."
        )
    expected = settings.value_head_dim if settings.is_general_preference else 1
    if outputs != expected:
        raise CheckpointError(f"{path} says {expected} outputs, but value_head.weight in {folder} has {outputs}.")
    return settings


def _yaml(path: Path) -> RewardConfig:
    """Four scalars, `name: value` in a line each, which is all of YAML that the trainer uses."""
    values: dict[str, str] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition("#")[0].partition(":")
            values[name.strip()] = value.strip()
        return RewardConfig(
            _bool(values["add_cross_attention"]),
            _positive(values["general_preference_tau"]),
            _bool(values["is_general_preference"]),
            int(values["value_head_dim"]),
            _mode(values.get("skipca_mode", "")),
        )
    except (OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged at {error}; expected add_cross_attention, general_preference_tau, "
            "is_general_preference and value_head_dim."
        ) from error


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(f"the temperature {text}, which is not a positive number")
    return value


def _mode(text: str) -> str:
    if text not in ("", "masked", "official"):
        raise ValueError(f"skipca_mode {text!r}, which is neither masked nor official")
    return text


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r}, which is neither true nor false")
    return text.lower() == "true"


def _renamed(state: dict[str, Tensor], rename: Callable[[str], str | None]) -> dict[str, Tensor]:
    named = {rename(name): tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in named.items() if name is not None}


def _check_projector(checkpoint: Official, weights: dict[str, nn.Parameter]) -> None:
    for name, tensor in checkpoint.projector.items():
        _fits(name, tensor.shape, weights, checkpoint.folder)
    whole = [name for name in weights if any(f".{part}" in f".{name}" for part in PROJECTORS)]
    lacking = [name for name in whole if name not in checkpoint.projector]
    if checkpoint.projector and lacking:
        raise CheckpointError(
            f"{checkpoint.folder} holds only part of the projector: {lacking[0]!r} is missing; copy the folder again."
        )


def _targeted(module: nn.Module, targets: tuple[str, ...]) -> list[str]:
    """Modules that peft would adapt: those named in `targets`, whole or by the end of their names."""
    linear = (name for name, part in module.named_modules() if isinstance(part, nn.Linear))
    return [name for name in linear if any(f".{name}".endswith(f".{target}") for target in targets)]


def _is_whole(folder: Path) -> bool:
    """Whether the weights are of a whole model: they hold its word embeddings."""
    words = ("embed_tokens.weight", "wte.weight")
    return any(True for path in weight_files(folder) for _ in tensors(path, lambda name: name.endswith(words)))


def _equal(stored: Tensor, base: Tensor) -> bool:
    """Whether both are the same numbers in the coarser of their two dtypes."""
    coarse = min(stored.dtype, base.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(stored.to(coarse), base.to(stored.device, coarse))


def _drawn(head: Mapping[str, Tensor], *names: str) -> bool:
    """Whether all these matrices are there and have the spread of their initial values."""
    return all(f"{name}.weight" in head and _as_drawn(head[f"{name}.weight"]) for name in names)


def _as_drawn(weight: Tensor) -> bool:
    """Whether a matrix (·, H) has the spread of its initial values."""
    spread = weight.float().square().mean().sqrt() * (weight.shape[1] + 1)
    return bool((spread - 1).abs() < 4 / (2 * weight.numel()) ** 0.5)


def _fits(name: str, shape: torch.Size, weights: dict[str, nn.Parameter], folder: Path) -> None:
    if name not in weights:
        raise CheckpointError(
            f"{folder} holds weights for {name!r}, which the base model does not have; check the base model."
        )
    if weights[name].shape != shape:
        raise CheckpointError(
            f"{folder} holds {tuple(shape)} for {name!r}, where the base model has "
            f"{tuple(weights[name].shape)}; check the base model."
        )
