"""One model shared out among processes (FSDP2): each holds a part of every weight, and gathers a layer's while it runs.

Gradients and moments are shared out alike. A frozen vision tower stays whole in every process: each looks at other
pictures and has seen other ones before, so that they do not ask for its weights together.
"""

import os
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from rewards.errors import RewardError
from rewards.llava.decoder import WHOLE, call_whole

_OLDEST = (2, 8)  # release of torch whose FSDP2 takes frozen weights of another dtype than trained ones


def is_configured() -> bool:
    """Whether accelerate's configuration asks for FSDP.

    Raises:
        RewardError: it asks for DeepSpeed, or for an FSDP that is not to be had here.
    """
    if _on("ACCELERATE_USE_DEEPSPEED"):
        raise RewardError(
            "Got a configuration of DeepSpeed, which train-reward does not run on; choose FSDP with fsdp_version 2 in "
            "accelerate config, or pass --shard: weights, gradients and moments are shared out as by ZeRO 3."
        )
    if not _on("ACCELERATE_USE_FSDP"):
        return False
    from torch.distributed.fsdp import CPUOffloadPolicy

    plugin = _plugin()
    if plugin.fsdp_version != 2:
        raise RewardError(f"Got fsdp_version {plugin.fsdp_version}; expected 2: set it in accelerate's configuration.")
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise RewardError("Got fsdp_offload_params true; expected false: take more processes, or --checkpointing.")
    return True


def shard(model: nn.Module, layers: Iterable[nn.Module], *, frozen: set[nn.Parameter]) -> None:
    """Share the weights of `model` out among all processes, in place; its parameters are other objects afterwards.

    Args:
        model: which is called as a whole.
        layers: decoder layers in it, each gathered apart.
        frozen: parameters that stay whole.

    Raises:
        RewardError: torch is too old.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    if tuple(int(number) for number in torch.__version__.split(".")[:2]) < _OLDEST:
        raise RewardError(f"Sharing weights out needs torch 2.8, this is {torch.__version__}; upgrade it.")
    freed = bool(_plugin().reshard_after_forward) if is_configured() else True
    for layer in layers:
        call_whole(layer)
        fully_shard(layer, reshard_after_forward=freed)
        register_fsdp_forward_method(layer, WHOLE)
    fully_shard(model, ignored_params=frozen)


def synchronise(model: nn.Module, *, now: bool) -> None:
    """Whether the next backward pass adds up the gradients of all processes; otherwise each keeps its own."""
    cast(Any, model).set_requires_gradient_sync(now)


def complete(tensor: Tensor) -> Tensor:
    """A tensor put together in every process, all of which must ask; one that is not shared out is given back."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """As `complete`, but on the CPU of the first process alone; of a shared tensor the others keep nothing."""
    full = complete(tensor)
    if full is tensor:
        return tensor
    return full.cpu() if torch.distributed.get_rank() == 0 else full.new_empty(0)


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor shared out as `parameter` is, on its device."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    tensor = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)


def _on(name: str) -> bool:
    return os.environ.get(name, "false").lower() == "true"


def _plugin() -> Any:  # noqa: ANN401  accelerate has no types
    from accelerate import FullyShardedDataParallelPlugin

    return FullyShardedDataParallelPlugin()
