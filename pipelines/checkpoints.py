"""Single-file checkpoints: all weights of a pipeline in one ``.safetensors`` file, in the layout of the model's makers.

Such a file says neither which pipeline it belongs to nor how its parts are built. Both come from a *config*: a folder
or hub id in diffusers format, whose weights are not needed. diffusers recognises most families by their weights' names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from pipelines.errors import PipelineError
from pipelines.foreign import Pipeline
from pipelines.sources import INDEX, read_json, safetensors_header


def read_checkpoint(path: Path, dtype: torch.dtype, config: str | None) -> Pipeline:
    """Load a single-file checkpoint as the pipeline class that its config names.

    Args:
        path: A ``.safetensors`` file.
        dtype: What the weights become.
        config: A diffusers folder or hub id; recognised from the weights when None.

    Raises:
        PipelineError: The weights are those of no pipeline that diffusers knows, or the config cannot be had.
    """
    import diffusers

    config = config or recognise(path)
    folder = config_folder(config, path)
    name = str(read_json(folder / INDEX).get("_class_name"))
    kind = getattr(diffusers, name, None)
    if kind is None or not hasattr(kind, "from_single_file"):
        raise PipelineError(
            f"{path} belongs to a {name}, which cannot be read from a single file. Use the model's folder or hub id."
        )
    pipe = kind.from_single_file(str(path), config=str(folder), torch_dtype=dtype, local_files_only=True)
    pipe.register_to_config(_name_or_path=str(path))
    return pipe


def recognise(path: Path) -> str:
    """The hub id of the model whose parts a checkpoint shares, recognised by diffusers from the weights' names.

    Raises:
        PipelineError: The names are known to no family. (diffusers itself would take them for Stable Diffusion 1.)
    """
    from diffusers.loaders import single_file_utils
    from safetensors.torch import load_file

    weights = load_file(path)  # mapped, not read
    infer: Callable[..., str] = single_file_utils.infer_diffusers_model_type
    kind = infer(weights)
    if kind == "v1" and single_file_utils.CHECKPOINT_KEY_NAMES["v1"] not in weights:
        first = next(iter(safetensors_header(path)), "none")
        raise PipelineError(
            f"{path} is a checkpoint of no known model family (its first weight is {first}). Give the diffusers folder "
            "or hub id of a model with the same parts as config, or use the model in diffusers format."
        )
    return str(single_file_utils.DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]["pretrained_model_name_or_path"])


def config_folder(config: str, path: Path) -> Path:
    """The folder of a config: itself, or the hub's small files (no weights) from the cache or the net.

    Raises:
        PipelineError: It is neither a diffusers folder nor to be had from the hub.
    """
    folder = Path(config).expanduser()
    if folder.is_dir():
        if not (folder / INDEX).is_file():
            raise PipelineError(f"The config {config} is no diffusers pipeline: it has no {INDEX}.")
        return folder
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(config, allow_patterns=["*.json", "**/*.json", "*.txt", "**/*.txt", "**/*.model"])
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"{path} has the parts of {config}, whose description is not in the local cache and could not be "
            "downloaded. Give a diffusers folder with the same parts as config, or load once with a network."
        ) from error
    return Path(found)
