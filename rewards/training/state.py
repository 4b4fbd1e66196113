"""The state of a training on disk: one file of plain tensors, there whole or not at all.

Order, learning rate and dropout are functions of (seed, step), so that weights, moments and the number of the step are
all there is to keep.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rewards.errors import CheckpointError
from rewards.training.sharding import gathered, like

FILE = "training.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class State:
    """Of a training.

    Attributes:
        step: how many steps were done.
        tensors: weights and moments, by "weight.name", "exp_avg.name", ….
    """

    step: int
    tensors: dict[str, Tensor]


def state_of(step: int, trained: Iterable[tuple[str, nn.Parameter]], optimizer: torch.optim.Optimizer) -> State:
    """The state after `step` steps; where weights are shared out, every process must ask, and the first is answered.

    Args:
        step: how many steps are done.
        trained: names and values of what is trained.
        optimizer: of these.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in trained:
        tensors[f"weight.{name}"] = gathered(parameter.detach())
        for moment, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = gathered(tensor)
    return State(step, tensors)


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
    wanted = json.loads(json.dumps(terms))
    for name in sorted(recorded.keys() | wanted.keys()):
        if recorded.get(name) != wanted.get(name):
            raise CheckpointError(
                f"The training in {folder} has {name} {recorded.get(name)!r}, this one {wanted.get(name)!r}; go on "
                "with what it began with, or begin again in another folder."
            )
    return State(step, tensors)


def restore(state: State, trained: Iterable[tuple[str, nn.Parameter]], optimizer: torch.optim.Optimizer) -> None:
    """Put weights and moments back."""
    with torch.no_grad():
        for name, parameter in trained:
            parameter.copy_(like(state.tensors[f"weight.{name}"], parameter))
            moments = {key: state.tensors[f"{key}.{name}"] for key in _MOMENTS if f"{key}.{name}" in state.tensors}
            if moments:
                optimizer.state[parameter] = {
                    key: tensor if key == "step" else like(tensor, parameter) for key, tensor in moments.items()
                }


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
