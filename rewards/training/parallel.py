"""How the processes of a training hold the model, add up their gradients and make a step; here each holds all of it.

Two other ways give each process a part: `sharding` (FSDP) and `zero` (DeepSpeed).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from rewards.training.settings import Settings
from rewards.training.trainee import Trainee

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Parallel(Protocol):
    """One process's share in a training.

    Attributes:
        model: gives the outputs.
        trained: names and values of what is trained, in the order of the names.
        split: weights lie in parts, so that all processes must ask for whatever is computed or read.
    """

    model: nn.Module
    trained: list[tuple[str, nn.Parameter]]
    split: bool

    def accumulate(self, *, last: bool) -> AbstractContextManager[object]:
        """Around one pass, forward and backward; at the `last` of a step gradients are averaged over processes."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add up gradients."""
        ...

    def step(self, rate: float) -> Tensor:
        """Clip the gradients and make a step at a learning rate; the gradient's norm before it was clipped.

        Where that is not finite, the weights are not to be used afterwards.
        """
        ...

    def gather(self, parameter: nn.Parameter) -> Tensor:
        """All of a parameter; where weights are split, the first process is answered and the others get nothing."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Whole weights and moments, by "weight.name", "exp_avg.name", …; in the first process, as with `gather`."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put a state back."""
        ...


Join: TypeAlias = Callable[[Trainee, Any], Parallel]  # of model and accelerator


class Replicated:
    """One process, or several that each hold the whole model (DDP).

    Args:
        trainee: the model.
        accelerator: of accelerate.
    """

    split = False

    def __init__(self, trainee: Trainee, accelerator: Any) -> None:  # noqa: ANN401  accelerate has no types
        self._accelerator, self._clip = accelerator, trainee.settings.clip
        self.model = self._joined(trainee)
        self.trained = list(trainee.trained())
        self._optimizer = adam(self.trained, trainee.settings)

    def accumulate(self, *, last: bool) -> AbstractContextManager[object]:
        """See `Parallel`."""
        passing: AbstractContextManager[object] = nullcontext() if last else self._accelerator.no_sync(self.model)
        return passing

    def backward(self, loss: Tensor) -> None:
        """See `Parallel`."""
        self._accelerator.backward(loss)

    def step(self, rate: float) -> Tensor:
        """See `Parallel`; no step is made where the norm is not finite."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        moved = [parameter for _, parameter in self.trained]
        norm = self._complete(torch.nn.utils.clip_grad_norm_(moved, self._clip))
        if norm.isfinite():
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def gather(self, parameter: nn.Parameter) -> Tensor:
        """See `Parallel`."""
        return self._gathered(parameter.detach())

    def state(self) -> dict[str, Tensor]:
        """See `Parallel`."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.trained:
            tensors[f"weight.{name}"] = self.gather(parameter)
            for moment, tensor in self._optimizer.state.get(parameter, {}).items():
                tensors[f"{moment}.{name}"] = self._gathered(tensor)
        return tensors

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Parallel`."""
        with torch.no_grad():
            for name, parameter in self.trained:
                parameter.copy_(self._like(state[f"weight.{name}"], parameter))
                moments = {key: state[f"{key}.{name}"] for key in MOMENTS if f"{key}.{name}" in state}
                if moments:
                    self._optimizer.state[parameter] = {
                        key: tensor if key == "step" else self._like(tensor, parameter)
                        for key, tensor in moments.items()
                    }

    def _joined(self, trainee: Trainee) -> nn.Module:
        """The model as this process calls it."""
        model: nn.Module = self._accelerator.prepare(trainee) if self._accelerator.num_processes > 1 else trainee
        return model

    def _complete(self, tensor: Tensor) -> Tensor:
        """All of a tensor, in every process."""
        return tensor

    def _gathered(self, tensor: Tensor) -> Tensor:
        """All of a tensor, in the first process."""
        return tensor

    def _like(self, tensor: Tensor, parameter: nn.Parameter) -> Tensor:
        """What of a whole tensor belongs where `parameter` is."""
        return tensor.to(parameter.device)


def adam(trained: Sequence[tuple[str, nn.Parameter]], settings: Settings) -> torch.optim.AdamW:
    """The optimizer of every training."""
    return torch.optim.AdamW(
        [parameter for _, parameter in trained],
        lr=settings.rate, betas=(0.9, 0.95), eps=1e-8, weight_decay=settings.decay,
    )  # fmt: skip


def is_on(flag: str) -> bool:
    """Whether accelerate's launcher set a flag."""
    return os.environ.get(flag, "false").lower() == "true"


def of_first(tensor: Tensor) -> Tensor:
    """A tensor on the CPU of the first process; nothing in the others."""
    return tensor.cpu() if torch.distributed.get_rank() == 0 else tensor.new_empty(0)
