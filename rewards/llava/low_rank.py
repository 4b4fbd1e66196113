"""Low-rank matrices as peft writes them: adapter_config.json and adapter_model, from any of its releases."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from torch import Tensor

from rewards.errors import CheckpointError
from rewards.llava.weights import read_json, tensors, usable

FILES = ("adapter_model.safetensors", "adapter_model.bin")


class LowRank(NamedTuple):
    """What a lora/ folder holds.

    Attributes:
        pairs: (A, B), of shapes (r, in) and (out, r), by the backbone's names of the matrices they are added to.
        scale: alpha / r.
        targets: names or ends of names of all modules that must have such a pair.
    """

    pairs: dict[str, tuple[Tensor, Tensor]]
    scale: float
    targets: tuple[str, ...]


def read_lora(folder: Path, rename: Callable[[str], str | None]) -> LowRank:
    """The matrices in `folder`; `rename` gives the backbone's name of a parameter, or None.

    Raises:
        CheckpointError: a file or half a pair is missing or damaged, or it is another kind of adapter.
    """
    scale, targets = _settings(folder / "adapter_config.json")
    files = [folder / name for name in FILES if (folder / name).is_file()]
    if not files:
        raise CheckpointError(f"There is no {FILES[1]} in {folder}; copy the checkpoint again.")
    halves: dict[str, dict[str, Tensor]] = {}
    for stored, tensor in tensors(files[0]):
        module, _, half = plain(stored).partition(".lora_")
        name = rename(f"{module}.weight")
        if name is not None:
            halves.setdefault(name.removesuffix(".weight"), {})[half[:1]] = usable(tensor, stored, files[0])
    return LowRank({name: _pair(name, pair, files[0]) for name, pair in halves.items()}, scale, targets)


def plain(name: str) -> str:
    """A stored name without peft's prefix, adapter name and wrapper."""
    return name.removeprefix("base_model.model.").replace(".default.", ".").replace(".base_layer.", ".")


def _pair(name: str, halves: dict[str, Tensor], path: Path) -> tuple[Tensor, Tensor]:
    if set(halves) != {"A", "B"}:
        raise CheckpointError(f"{path} holds only one of the two matrices for {name!r}; copy it again.")
    down, up = halves["A"], halves["B"]
    if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1]:
        raise CheckpointError(
            f"{path} holds {tuple(down.shape)} and {tuple(up.shape)} for {name!r}; expected (r, in) and (out, r): copy "
            "it again."
        )
    return down, up


def _settings(path: Path) -> tuple[float, tuple[str, ...]]:
    config = read_json(path)
    refused = [name for name in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern") if config.get(name)]
    if refused:
        raise CheckpointError(f"{path} sets {refused[0]}; expected plain LoRA, as LLaVA-Reward uses.")
    alpha, rank, targets = (config.get(name) for name in ("lora_alpha", "r", "target_modules"))
    named: Any = [targets] if isinstance(targets, str) else targets
    if not (_is_positive(alpha) and _is_positive(rank) and _is_names(named)):
        raise CheckpointError(
            f"{path} says lora_alpha {alpha!r}, r {rank!r} and target_modules {targets!r:.60}; expected two positive "
            "numbers and a list of names: copy it again."
        )
    return alpha / rank, tuple(named)


def _is_positive(value: Any) -> TypeGuard[float]:  # noqa: ANN401  anything that JSON holds
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_names(value: Any) -> bool:  # noqa: ANN401  anything that JSON holds
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)
