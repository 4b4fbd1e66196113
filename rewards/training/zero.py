"""One model shared out among processes by DeepSpeed, as accelerate's configuration asks for.

ZeRO 1 gives each process a part of the moments, 2 of the gradients too, 3 of the weights too. What a step is (batch,
passes, clipping, optimizer, learning rate) the settings say, whatever the configuration has.

Reference: arXiv:1910.02054.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor, nn
from torch.nn import functional as F

from rewards.errors import RewardError
from rewards.training.parallel import MOMENTS, adam, is_on, of_first
from rewards.training.settings import Settings
from rewards.training.trainee import Trainee, is_projector, is_tower

_OLDEST = "0.19.8"  # that gives the norm of a gradient which is not finite as it is
FLAG = "ACCELERATE_USE_DEEPSPEED"
_OURS = {"optimizer": "AdamW with --rate and --weight-decay", "scheduler": "a cosine with --warmup"}


def configuration(settings: Settings) -> dict[str, Any] | None:
    """What DeepSpeed is to do, None where accelerate's configuration does not ask for it.

    Raises:
        RewardError: it is not installed, or asked for what is not to be had here.
    """
    if not is_on(FLAG):
        return None
    from accelerate import DeepSpeedPlugin

    try:
        asked = _without_auto(DeepSpeedPlugin().deepspeed_config)
    except (OSError, ValueError, AttributeError) as error:  # the last where something is no object
        raise RewardError(f"DeepSpeed's configuration cannot be read: {error}; mend it, and begin again.") from error
    _check(asked)
    _check_installed()
    asked.pop("train_micro_batch_size_per_gpu", None)
    own = {"train_batch_size": settings.batch, "gradient_accumulation_steps": 1, "gradient_clipping": settings.clip}
    return {**asked, **own, "zero_allow_untested_optimizer": True}


def stage_of(config: Mapping[str, Any]) -> int:
    """Of ZeRO, 0 to 3; at 0 nothing is shared out."""
    return int(_within(config, "zero_optimization", "stage") or 0)


class Zero:
    """Several processes that train one model by DeepSpeed (`Parallel`).

    Args:
        trainee: the model, changed in place.
        config: see `configuration`.
    """

    def __init__(self, trainee: Trainee, config: Mapping[str, Any]) -> None:
        self.split = stage_of(config) == 3
        self.trained = list(trainee.trained())
        if self.split:  # each process looks at pictures of its own, and needs its vision tower alone
            _hide(trainee.backbone, frozenset(trainee.frozen_tower.values()))
        if trainee.device.type == "cpu":  # which DeepSpeed would not choose beside a GPU
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        with redirect_stdout(sys.stderr):
            import deepspeed

            optimizer = adam(self.trained, trainee.settings)
            engine = deepspeed.initialize(
                model=trainee, optimizer=optimizer, config=dict(config), dist_init_required=False
            )[0]  # fmt: skip
        self._engine: Any = engine
        self.model: nn.Module = engine

    def accumulate(self, *, last: bool) -> AbstractContextManager[object]:
        """See `Parallel`."""
        self._engine.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """See `Parallel`."""
        with redirect_stdout(sys.stderr):
            self._engine.backward(loss)

    def step(self, rate: float) -> Tensor:
        """See `Parallel`."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        with redirect_stdout(sys.stderr):
            self._engine.step()
        return torch.as_tensor(self._engine.get_global_grad_norm())

    def gather(self, parameter: nn.Parameter) -> Tensor:
        """See `Parallel`."""
        from deepspeed.runtime.zero import GatheredParameters

        if not hasattr(parameter, "ds_id"):
            return parameter.detach()
        with GatheredParameters([parameter]):
            return of_first(parameter.detach().clone())

    def state(self) -> dict[str, Tensor]:
        """See `Parallel`."""
        from deepspeed.utils import safe_get_full_optimizer_state

        tensors: dict[str, Tensor] = {}
        steps = next(iter(self._inner.state.values()))["step"]
        for name, parameter in self.trained:
            tensors[f"weight.{name}"] = self.gather(parameter)
            for moment in MOMENTS[:2]:
                tensors[f"{moment}.{name}"] = of_first(safe_get_full_optimizer_state(parameter, moment))
            tensors[f"step.{name}"] = steps.clone()
        return tensors

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Parallel`."""
        self._begin_moments(next(tensor for name, tensor in state.items() if name.startswith("step.")))
        with torch.no_grad():
            for name, parameter in self.trained:
                self._put(parameter, {key: state[f"{key}.{name}"] for key in ("weight", *MOMENTS[:2])})

    @property
    def _inner(self) -> Any:  # noqa: ANN401
        """The optimizer of this process's part."""
        return self._engine.optimizer.optimizer

    def _begin_moments(self, steps: Tensor) -> None:
        """Make what the optimizer makes at its first step, so that it can be written to."""
        outer = self._engine.optimizer
        flat = outer.fp32_partitioned_groups_flat if self.split else outer.single_partition_of_fp32_groups
        for part in flat:
            self._inner.state[part] = {key: torch.zeros_like(part) for key in MOMENTS[:2]} | {"step": steps.clone()}
        if not self.split:
            outer._lazy_init_hp_params_optimizer_state()

    def _put(self, parameter: nn.Parameter, values: Mapping[str, Tensor]) -> None:
        """Write weight and moments of a parameter into this process's parts, and the weight where it is whole."""
        from deepspeed import utils
        from deepspeed.runtime.zero import GatheredParameters

        here = {key: value.to(parameter.device) for key, value in values.items()}
        if not self.split:
            parameter.copy_(here["weight"])
            utils.safe_set_full_fp32_param(parameter, here["weight"])
            for moment in MOMENTS[:2]:
                utils.safe_set_full_optimizer_state(parameter, here[moment], moment)
            return
        with GatheredParameters([parameter], modifier_rank=0):
            parameter.copy_(here["weight"])
        parts = {key: _part(value, parameter) for key, value in here.items()}
        utils.safe_set_local_fp32_param(parameter, parts["weight"])
        for moment in MOMENTS[:2]:
            utils.safe_set_local_optimizer_state(parameter, parts[moment], moment)


def _check_installed() -> None:
    try:
        found = version("deepspeed")
    except PackageNotFoundError:
        raise RewardError(
            f"Got a configuration of DeepSpeed, which is not installed; pip install 'deepspeed>={_OLDEST}'."
        ) from None
    if Version(found) < Version(_OLDEST):
        raise RewardError(
            f"Got DeepSpeed {found}, which trains on after a gradient that is not finite; expected {_OLDEST} or later: "
            "pip install --upgrade deepspeed."
        )


def _check(asked: Mapping[str, Any]) -> None:
    stage = _within(asked, "zero_optimization", "stage")
    if stage not in (None, 0, 1, 2, 3):
        raise RewardError(f"Got stage {stage!r} in DeepSpeed's configuration; expected 0, 1, 2 or 3.")
    for name in ("optimizer", "scheduler"):
        if name in asked:
            raise RewardError(
                f"Got {name} in DeepSpeed's configuration; expected none: train-reward has {_OURS[name]}."
            )
    for name in ("fp16", "bf16"):
        if _within(asked, name, "enabled"):
            raise RewardError(
                f"Got {name} in DeepSpeed's configuration; expected none: pass --bf16, which keeps what is trained in "
                "float32."
            )
    for name in ("offload_optimizer", "offload_param"):
        if _within(asked, "zero_optimization", name, "device") not in (None, "none"):
            raise RewardError(
                f"Got {name} in DeepSpeed's configuration; expected none: take more processes, a higher stage, or "
                "--checkpointing."
            )


def _within(config: Any, *names: str) -> Any:  # noqa: ANN401  JSON
    """What stands in a configuration under names within names; None where nothing does."""
    for name in names:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def _without_auto(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what accelerate would fill in; DeepSpeed has defaults for it."""
    return {
        name: _without_auto(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if value != "auto"
    }


def _hide(module: nn.Module, frozen: frozenset[nn.Parameter], path: str = "") -> None:
    """Let the parts of a frozen vision tower be plain attributes, which DeepSpeed does not see."""
    for name, child in list(module.named_children()):
        inside = f"{path}{name}."
        if is_tower(inside) and not is_projector(inside) and frozen.issuperset(child.parameters()):
            del module._modules[name]
            module.__dict__[name] = child
        else:
            _hide(child, frozen, inside)


def _part(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """What ZeRO 3 keeps here of a whole tensor; the last process's part ends with zeros."""
    size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
    flat = F.pad(value.flatten(), (0, size * torch.distributed.get_world_size() - value.numel()))
    return flat.narrow(0, size * torch.distributed.get_rank(), size)
