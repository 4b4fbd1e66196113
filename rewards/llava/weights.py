"""Weights from disk into a module that was built without any: sharded safetensors, or torch files of plain tensors."""

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewards.errors import CheckpointError
from rewards.fingerprints import fingerprint as hash_of

DeviceMap = str | Mapping[str, str | int | torch.device]
_WHOLE = [  # never split between devices
    "CLIPVisionModel", "CLIPVisionTransformer", "Qwen2_5_VisionTransformerPretrainedModel",
    "Phi3DecoderLayer", "LlamaDecoderLayer", "Qwen2_5_VLDecoderLayer",
]  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: no such file, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"There is no {path.name} in {path.parent}; expected a model folder.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Copy it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a JSON object.")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The files of weights in a model folder, safetensors before torch files.

    Raises:
        CheckpointError: there are none, or a shard that the index names is missing.
    """
    for stem in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{stem}.index.json"
        if index.is_file():
            shards = [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
            missing = [shard.name for shard in shards if not shard.is_file()]
            if missing:
                raise CheckpointError(
                    f"{folder} lacks {', '.join(missing)}, which {index.name} names; copy the folder again."
                )
            return shards
        if (folder / stem).is_file():
            return [folder / stem]
    raise CheckpointError(
        f"There are no weights in {folder}; expected model.safetensors, its index, or pytorch_model.bin."
    )


def fingerprint(folder: Path) -> str:
    """Hash of a model folder's config.json and weights, 12 hexadecimal digits, in a moment whatever their size.

    Of a file larger than 16 MiB it takes the size and 256 pieces of 64 KiB all through it, the first of which holds the
    header or the beginning of it: models of other shapes differ there, and so do those that were trained further, but
    not such as differ between the pieces alone.

    Raises:
        CheckpointError: there are no weights, or a shard that the index names is missing.
    """
    return hash_of([path for path in (folder / "config.json", *weight_files(folder)) if path.is_file()], "")


def tensors(path: Path, keep: Callable[[str], bool] = lambda _: True) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of one file, those that `keep` wants, on the CPU; nothing but tensors is ever unpickled.

    Raises:
        CheckpointError: the file is truncated, or holds more than tensors.
    """
    if path.suffix == ".safetensors":
        yield from _safetensors(path, keep)
        return
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its own advice is to load with weights_only=False
        raise CheckpointError(
            f"{path} cannot be read as plain tensors: it is damaged, or holds objects, which are never loaded. Copy it "
            "again."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        said = str(error).partition(". ")[0].splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is truncated or damaged ({said}); copy it again.") from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(f"{path} holds more than named tensors; expected what torch.save writes of a state dict.")
    yield from ((name, tensor) for name, tensor in content.items() if keep(name))


def usable(tensor: Tensor, name: str, path: Path | str) -> Tensor:
    """The tensor itself.

    Raises:
        CheckpointError: it is empty, not of real numbers, or not finite.
    """
    if not (tensor.is_floating_point() and tensor.numel()):
        raise CheckpointError(
            f"{name!r} in {path} is {tuple(tensor.shape)} of {tensor.dtype}; expected at least one floating-point "
            "number: copy it again."
        )
    if not tensor.isfinite().all():
        raise CheckpointError(f"{name!r} in {path} holds values that are not finite; the checkpoint is damaged.")
    return tensor


def fill(
    module: nn.Module,
    files: list[Path],
    rename: Callable[[str], str | None],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    device_map: DeviceMap | None = None,
) -> None:
    """Give every parameter of `module` its weights.

    Args:
        module: built on the meta device, buffers excepted.
        files: from `weight_files`.
        rename: the parameter's name for a name in the files; None for what is not needed.
        device: where all parameters go.
        dtype: of all parameters.
        device_map: a module's name → its device, or "auto" to share the model out over the devices there are; overrides
            `device`.

    Raises:
        CheckpointError: a parameter is missing, unknown or of another shape.
    """
    place = _placement(module, device, dtype, device_map)
    wanted = dict(module.named_parameters())
    done: set[str] = set()
    for path in files:
        for stored, tensor in tensors(path, lambda stored: rename(stored) is not None):
            name = rename(stored)
            if name is None or name in done:
                continue
            _check(name, stored, tensor, wanted, path)
            _set(module, name, tensor.to(place(name), dtype))
            done.add(name)
    missing = sorted(set(wanted) - done)
    if missing:
        raise CheckpointError(
            f"{len(missing)} of {len(wanted)} weights are missing in {files[0].parent}, for example {missing[0]!r}; "
            "copy the folder again, or check that config.json belongs to it."
        )
    for name, buffer in module.named_buffers():
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, buffer.to(place(name)))


def empty(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` builds, with its parameters on the meta device: no memory, no initialisation."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return build().eval().requires_grad_(False)


def _safetensors(path: Path, keep: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for name in filter(keep, file.keys()):
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {_line(error)} Copy it again.") from error


def _check(name: str, stored: str, tensor: Tensor, wanted: Mapping[str, Tensor], path: Path) -> None:
    if name not in wanted:
        raise CheckpointError(
            f"{path} holds {stored!r}, which this backbone does not have; check that config.json belongs to it."
        )
    if tensor.shape != wanted[name].shape:
        raise CheckpointError(
            f"{stored!r} in {path} has shape {tuple(tensor.shape)}; expected {tuple(wanted[name].shape)} by "
            "config.json."
        )


def _set(module: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))


def _placement(
    module: nn.Module, device: torch.device | str, dtype: torch.dtype, device_map: DeviceMap | None
) -> Callable[[str], torch.device]:
    if device_map is None:
        return lambda _: torch.device(device)
    if isinstance(device_map, str):
        device_map = _shared_out(module, dtype, device_map)
    places = {name: torch.device(where) for name, where in device_map.items()}

    def place(name: str) -> torch.device:
        prefixes = [prefix for prefix in places if not prefix or name == prefix or name.startswith(f"{prefix}.")]
        if not prefixes:
            raise CheckpointError(f"device_map names no device for {name!r}; add one, or '' for all the rest.")
        return places[max(prefixes, key=len)]

    return place


def _shared_out(module: nn.Module, dtype: torch.dtype, how: str) -> dict[str, Any]:
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    if how not in ("auto", "balanced"):
        raise CheckpointError(
            f"Got device_map {how!r}; expected 'auto', 'balanced', or a mapping from module names to devices."
        )
    memory = get_balanced_memory(module, dtype=dtype, no_split_module_classes=_WHOLE)
    places: dict[str, Any] = infer_auto_device_map(
        module, max_memory=memory, dtype=dtype, no_split_module_classes=_WHOLE
    )
    if "disk" in places.values():
        raise CheckpointError("The model fits neither the GPUs nor the memory of this machine; try dtype bfloat16.")
    return places


def _line(error: Exception) -> str:
    return f"{str(error).strip().splitlines()[0].rstrip('.')}." if str(error).strip() else f"{type(error).__name__}."
