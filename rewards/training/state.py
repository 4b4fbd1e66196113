"""The state of a training on disk: one file of plain tensors, there whole or not at all.

Order, learning rate and dropout are functions of (seed, step), so that weights, moments and the number of the step are
all there is to keep.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rewards.errors import CheckpointError

FILE = "training.safetensors"


@dataclass(frozen=True)
class State:
    """Of a training.

    Attributes:
        step: how many steps were done.
        tensors: weights and moments, by "weight.name", "exp_avg.name", ….
    """

    step: int
    tensors: dict[str, Tensor]


def save_state(folder: Path, state: State, terms: Mapping[str, object]) -> None:
    """Write a state into the `folder` of a training, in the place of an older one; `terms` must agree on resuming."""
    from safetensors.torch import save_file

    stored = {name: tensor.cpu().contiguous() for name, tensor in state.tensors.items()}
    part = folder / f"{FILE}.part"
    save_file(stored, part, metadata={"step": str(state.step), "terms": json.dumps(terms)})
    replace_synced(part, folder / FILE)


def load_state(folder: Path, terms: Mapping[str, object]) -> State | None:
    """The state in `folder`, None if there is none.

    Raises:
        CheckpointError: it is damaged, or of a training with other `terms`.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        step, recorded = int(about["step"]), json.loads(about["terms"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); begin again in another folder.") from error
    if found := difference(recorded, terms):
        name, theirs, ours = found
        raise CheckpointError(
            f"The training in {folder} has {name} {theirs!r}, this one {ours!r}; go on with what it began with, or "
            "begin again in another folder."
        )
    return State(step, tensors)


def difference(recorded: Mapping[str, object], terms: Mapping[str, object]) -> tuple[str, object, object] | None:
    """The first of the terms that are recorded as others: name, what is recorded, what it is now; None if all agree."""
    wanted = json.loads(json.dumps(terms))
    for name in sorted(recorded.keys() | wanted.keys()):
        if recorded.get(name) != wanted.get(name):
            return name, recorded.get(name), wanted.get(name)
    return None


def replace_synced(part: Path, path: Path) -> None:
    """Move `part` to `path` so that after a power cut the one or the other is there, whole."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
    if hasattr(os, "O_DIRECTORY"):
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
