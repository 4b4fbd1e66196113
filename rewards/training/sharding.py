"""One model shared out among processes (FSDP2): each holds a part of every weight, and gathers a layer's while it runs.

Gradients and moments are shared out alike. A frozen vision tower stays whole in every process: each looks at other
pictures and has seen other ones before, so that they do not ask for its weights together.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from rewards.errors import RewardError
from rewards.llava.decoder import WHOLE, call_whole
from rewards.training.parallel import Replicated, is_on, of_first
from rewards.training.trainee import Trainee

_OLDEST = (2, 8)  # release of torch whose FSDP2 takes frozen weights of another dtype than trained ones


def is_configured() -> bool:
    """Whether accelerate's configuration asks for FSDP.

    Raises:
        RewardError: for one that is not to be had here.
    """
    if not is_on("ACCELERATE_USE_FSDP"):
        return False
    from torch.distributed.fsdp import CPUOffloadPolicy

    plugin = _plugin()
    if plugin.fsdp_version != 2:
        raise RewardError(f"Got fsdp_version {plugin.fsdp_version}; expected 2: set it in accelerate's configuration.")
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise RewardError("Got fsdp_offload_params true; expected false: take more processes, or --checkpointing.")
    return True


class Sharded(Replicated):
    """Several processes with a part of the model each.

    Args:
        trainee: the model, changed in place: its parameters are other objects afterwards.
        accelerator: of accelerate.

    Raises:
        RewardError: torch is too old.
    """

    split = True

    def accumulate(self, *, last: bool) -> AbstractContextManager[object]:
        """See `Parallel`."""
        cast(Any, self.model).set_requires_gradient_sync(last)
        return nullcontext()

    def _joined(self, trainee: Trainee) -> nn.Module:
        _shard(trainee)
        return trainee

    def _complete(self, tensor: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def _gathered(self, tensor: Tensor) -> Tensor:
        full = self._complete(tensor)
        return tensor if full is tensor else of_first(full)

    def _like(self, tensor: Tensor, parameter: nn.Parameter) -> Tensor:
        from torch.distributed.tensor import DTensor, distribute_tensor

        tensor = tensor.to(parameter.device)
        if not isinstance(parameter, DTensor):
            return tensor
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)


def _shard(trainee: Trainee) -> None:
    """Share the weights out among all processes; each decoder layer is gathered apart."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    if tuple(int(number) for number in torch.__version__.split(".")[:2]) < _OLDEST:
        raise RewardError(f"Sharing weights out needs torch 2.8, this is {torch.__version__}; upgrade it.")
    freed = bool(_plugin().reshard_after_forward) if is_configured() else True
    for layer in trainee.layers:
        call_whole(layer)
        fully_shard(layer, reshard_after_forward=freed)
        register_fsdp_forward_method(layer, WHOLE)
    fully_shard(trainee, ignored_params=set(trainee.frozen_tower.values()))


def _plugin() -> Any:  # noqa: ANN401  accelerate has no types
    from accelerate import FullyShardedDataParallelPlugin

    return FullyShardedDataParallelPlugin()
