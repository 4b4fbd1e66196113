"""LoRA weights: small additions to a model's weights, each an adapter of its own with its own weight."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import PipelineError
from pipelines.foreign import Pipeline, sentences
from pipelines.sources import safetensors_header


def add_loras(pipe: Pipeline, loras: list[str]) -> None:
    """Attach LoRA weights, each as an adapter of its own, at the weights asked for."""
    if loras and not hasattr(pipe, "load_lora_weights"):
        raise PipelineError(f"{type(pipe).__name__} takes no LoRA weights; leave lora out.")
    weights: dict[str, float] = {}
    for index, lora in enumerate(loras):
        name, weight = split_weight(lora)
        adapter = f"lora_{index}"
        with sentences(name, "LoRA"):
            where, file = _lora_place(name)
            pipe.load_lora_weights(where, weight_name=file, adapter_name=adapter, use_safetensors=True)
            loaded = {one for names in pipe.get_list_adapters().values() for one in names}
        if adapter not in loaded:
            raise PipelineError(
                f"The LoRA {name} has no weights for {type(pipe).__name__}; it was made for another model."
            )
        weights[adapter] = weight
    if weights:
        pipe.set_adapters(list(weights), list(weights.values()))


def split_weight(lora: str) -> tuple[str, float]:
    """``"path:0.8"`` → ``("path", 0.8)``; the weight is 1 if none is given."""
    name, colon, weight = lora.rpartition(":")
    try:
        return (name, float(weight)) if colon and name else (lora, 1.0)
    except ValueError:
        return lora, 1.0


def _lora_place(name: str) -> tuple[str, str | None]:
    """The folder or hub id of LoRA weights, and the file's name if it is given."""
    path = Path(name).expanduser()
    if path.is_file():
        safetensors_header(path)
        return str(path.parent), path.name
    if path.is_dir():
        files = sorted(file.name for file in path.glob("*.safetensors"))
        if len(files) != 1:
            raise PipelineError(f"The LoRA folder {name} holds {len(files)} .safetensors files; name the one to use.")
        return str(path), files[0]
    if name.count("/") == 2 and path.suffix == ".safetensors":
        return name.rpartition("/")[0], path.name
    if name.count("/") != 1 or path.suffix:
        raise PipelineError(
            f"There is no LoRA file, folder or hub id {name}. Expected for example style.safetensors:0.8."
        )
    return name, None
