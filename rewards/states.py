"""Weights as their authors published them: one file of named tensors, under their own names.

`place` puts them into a module that was built without any, after `rename` in the reward's own file has translated the
names; what is missing, unknown or of another shape is an error with the file's name.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rewards.errors import CheckpointError
from rewards.llava.families import resolve
from rewards.llava.weights import tensors

State = dict[str, Tensor]


def find_file(checkpoint: str | Path, filename: str) -> Path:
    """The file itself, or `filename` in a folder or in the hub's repository of that name, downloaded if need be.

    Raises:
        CheckpointError: there is none.
    """
    if Path(checkpoint).is_file():
        return Path(checkpoint)
    path = resolve(checkpoint, [filename]) / filename
    if not path.is_file():
        raise CheckpointError(f"There is no {filename} in {str(checkpoint)!r}; expected it, or the path of the file.")
    return path


def read_state(path: Path) -> State:
    """Names and tensors of a file; of a training checkpoint what it holds as "state_dict".

    Nothing but tensors and plain values is ever unpickled.

    Raises:
        CheckpointError: the file is damaged, or holds code.
    """
    if path.suffix == ".safetensors":
        return dict(tensors(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as plain tensors; copy it again, or save only the state dict of what it holds."
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds more than named tensors; expected what torch.save writes of a state dict.")
    return dict(state)


def place(module: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Give every parameter of `module`, which may be on the meta device, its tensor from `state`, as float32.

    Raises:
        CheckpointError: a parameter is missing, unknown or of another shape.
    """
    wanted = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            raise CheckpointError(
                f"{source} gives {name!r} as {given.get(name, 'nothing')}; expected {wanted.get(name, 'nothing')}: "
                "check that it is the checkpoint of this reward."
            )
    module.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False, assign=True)
    module.requires_grad_(False).eval()
