"""A model of transformers that answers as it was published: loaded whole, or refused."""

from pathlib import Path
from typing import Any

import torch

from rewards.errors import CheckpointError
from rewards.llava.backbone import Foreign

FILES = ("*.json", "*.txt", "*.safetensors")


def load_whole(kind: Any, folder: Path, dtype: torch.dtype) -> Foreign:  # noqa: ANN401 - a class of transformers
    """The model in `folder`, ready to run.

    Args:
        kind: The class of transformers, automatic or of one architecture.
        folder: With config.json and weights.
        dtype: Of the weights.

    Raises:
        CheckpointError: It holds no such model, or not all of its weights.
    """
    try:
        model, report = kind.from_pretrained(folder, dtype=dtype, local_files_only=True, output_loading_info=True)
    except Exception as error:  # transformers has no one class for what is wrong with a folder
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder} holds no model that transformers can load: {said}") from error
    lost = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lost:
        raise CheckpointError(
            f"{len(lost)} weights in {folder} are missing or of another shape, for example {lost[0]!r}; copy it again."
        )
    loaded: Foreign = model.eval().requires_grad_(False)
    return loaded


def processor_of(kind: Any, folder: Path) -> Foreign:  # noqa: ANN401 - a class of transformers
    """What prepares pictures, and text, for the model in `folder`, in PIL's arithmetic.

    Raises:
        CheckpointError: It holds none.
    """
    try:
        loaded: Foreign = kind.from_pretrained(folder, local_files_only=True, backend="pil")
    except Exception as error:  # what is missing differs from family to family
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"The processor in {folder} cannot be loaded: {said}") from error
    return loaded
