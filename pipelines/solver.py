"""What a solver carries from step to step, and the noise it asks for, both taken apart by particle."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pipelines.errors import UnsupportedScheduler
from pipelines.noise import step_noise
from pipelines.particles import Rows, SolverMemory
from pipelines.schedule import CURE


class StepNoise(TorchFunctionMode):
    """Answers each request for random numbers by the particles' own noise of this step."""

    def __init__(self, streams: Sequence[int], step: int) -> None:
        super().__init__()
        self.streams, self.step, self.draws = streams, step, 0

    def __torch_function__(  # type: ignore[no-untyped-def]
        self,
        func: Callable[..., object],
        types: object,
        args=(),  # noqa: ANN001
        kwargs=None,  # noqa: ANN001
    ) -> object:
        kwargs = kwargs or {}
        if func is torch.randn:
            shape = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
            return self._draw(kwargs.get("size", shape), kwargs.get("dtype"), kwargs.get("device"))
        if func is torch.randn_like:
            like = args[0] if args else kwargs["input"]
            return self._draw(like.shape, kwargs.get("dtype") or like.dtype, kwargs.get("device") or like.device)
        return func(*args, **kwargs)

    def _draw(self, shape: Sequence[int], dtype: torch.dtype | None, device: torch.device | None) -> Tensor:
        if not len(shape) or shape[0] != len(self.streams):
            raise UnsupportedScheduler(
                f"The scheduler drew noise of shape {tuple(shape)} for {len(self.streams)} particles, where one row "
                f"per particle was expected, so that it cannot be made a function of the particle. {CURE}"
            )
        noise = step_noise(self.streams, self.step, shape[1:], draw=self.draws)
        self.draws += 1
        return noise.to(dtype=dtype or torch.get_default_dtype(), device=device or "cpu")


def snapshot(scheduler: Any) -> Mapping[str, object]:  # noqa: ANN401
    """The scheduler's attributes as they are now."""
    return {name: _copied(value) for name, value in scheduler.__dict__.items() if name != "window"}


def restore(scheduler: Any, before: Mapping[str, object]) -> None:  # noqa: ANN401
    """Give the scheduler back the attributes of a snapshot, and no others."""
    kept = {name: value for name, value in scheduler.__dict__.items() if name == "window"}
    scheduler.__dict__.clear()
    scheduler.__dict__.update(kept, **{name: _copied(value) for name, value in before.items()})


def _copied(value: object) -> object:
    """The value, with its plain containers copied, so that later changes in place can be seen and undone."""
    if type(value) is list:
        return [_copied(item) for item in value]
    if type(value) is tuple:
        return tuple(map(_copied, value))
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return value


def collect(scheduler: Any, before: Mapping[str, object], sample: Tensor) -> SolverMemory:  # noqa: ANN401
    """What differs from the snapshot, with the tensors that have the sample's rows marked as per particle."""
    changed = {
        name: value
        for name, value in scheduler.__dict__.items()
        if name != "window" and not (name in before and _same(value, before[name]))
    }
    return SolverMemory(MappingProxyType({name: _pack(name, value, sample) for name, value in changed.items()}))


def _same(value: object, old: object) -> bool:
    if isinstance(value, list | tuple) and isinstance(old, list | tuple):
        return len(value) == len(old) and all(map(_same, value, old))
    if isinstance(value, dict) and isinstance(old, dict):
        return value.keys() == old.keys() and all(_same(item, old[key]) for key, item in value.items())
    if isinstance(value, int | float | str | None):
        return type(value) is type(old) and value == old
    return value is old


def _pack(name: str, value: object, sample: Tensor) -> object:
    if isinstance(value, list | tuple):
        return type(value)(_pack(name, item, sample) for item in value)
    if isinstance(value, dict):
        return MappingProxyType({key: _pack(name, item, sample) for key, item in value.items()})
    if isinstance(value, Tensor) and value.ndim == sample.ndim and len(value) == len(sample):
        return Rows(value)
    if value is None or isinstance(value, int | float | str | Tensor | torch.dtype | torch.device) or _is_scalar(value):
        return value
    raise UnsupportedScheduler(
        f"The scheduler keeps a {type(value).__name__} in `{name}` between steps, which cannot be split by particle. "
        f"{CURE}"
    )


def _is_scalar(value: object) -> bool:
    return bool(type(value).__module__ == "numpy")


def unpack(value: object) -> object:
    """A remembered value as the scheduler keeps it: tensors, in containers that it may change."""
    if isinstance(value, Rows):
        return value.tensor
    if isinstance(value, list | tuple):
        return type(value)(unpack(item) for item in value)
    if isinstance(value, Mapping):
        return {key: unpack(item) for key, item in value.items()}
    return value
