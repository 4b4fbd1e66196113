"""Which steps of a run are stochastic: found by trying them, so that no scheduler must be known by name."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipelines.solver import restore, snapshot
from pipelines.transition import Eta
from pipelines.window import Window


def stochastic_steps(pipe: Any, fresh: Any, eta: Eta) -> range:  # noqa: ANN401 - diffusers has no types
    """The steps at which equal particles with different streams may part, tried out on two numbers.

    Args:
        pipe: the pipeline that calls the scheduler.
        fresh: its scheduler, windowed, whose timesteps are set; it is not changed.
        eta: of the run.

    Returns:
        From the first such step to the last one; a step to sigma = 0 is none. Empty if the run is deterministic.
    """
    trial, before, steps = copy.copy(fresh), snapshot(fresh), fresh.window.steps
    trial.window = Window(0, steps, steps, (0, 1), eta, schedule=fresh.window.schedule, before=before)
    restore(trial, before)
    options = _own_eta(pipe, trial)
    apart = [step for step, timestep in enumerate(trial.timesteps) if _parts(trial, timestep, options)]
    return range(apart[0], apart[-1] + 1) if apart else range(0)


def _own_eta(pipe: Any, scheduler: Any) -> dict[str, object]:  # noqa: ANN401
    """What the pipeline passes to its scheduler as that one's own `eta`, where both have one: the default."""
    own = inspect.signature(type(pipe).__call__).parameters.get("eta")
    taken = "eta" in inspect.signature(scheduler.step).parameters
    return {"eta": own.default} if own is not None and taken else {}


def _parts(scheduler: Any, timestep: Tensor, options: Mapping[str, object]) -> bool:  # noqa: ANN401
    """Whether the next step takes two equal states to different ones."""
    sample = torch.ones(2, 1, 1, 1, device=timestep.device)
    if hasattr(scheduler, "scale_model_input"):
        scheduler.scale_model_input(sample, timestep)
    one, other = scheduler.step(sample / 2, timestep, sample, return_dict=False, **options)[0]
    return not torch.equal(one, other)
