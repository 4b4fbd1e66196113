"""Another scheduler by the name that people call it, with the settings of the model kept."""

from __future__ import annotations

import difflib
from typing import Any

from pipelines.errors import UnsupportedScheduler
from pipelines.foreign import one_line

NAMES = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "lcm": "LCMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
FLOW = {"euler": "FlowMatchEulerDiscreteScheduler", "lcm": "FlowMatchLCMScheduler"}
FLOW_SETTINGS = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def with_scheduler(pipe: Any, name: str) -> None:  # noqa: ANN401 - diffusers has no types
    """Give the pipeline another scheduler, made from the configuration of its own; nothing if it has that already.

    Args:
        pipe: a diffusers pipeline.
        name: "euler", "dpm++", … (`NAMES`; on a flow model its flow-matching form), or the name of a diffusers class.

    Raises:
        UnsupportedScheduler: no such scheduler, or not for this kind of model.
    """
    import diffusers

    own = pipe.scheduler
    flow = hasattr(own, "scale_noise") or bool(own.config.get("use_flow_sigmas"))
    wanted = {**NAMES, **FLOW}.get(name, name) if flow else NAMES.get(name, name)
    if wanted == type(own).__name__:
        return
    kind = getattr(diffusers, wanted, None) if wanted.endswith("Scheduler") else None
    if kind is None:
        near = difflib.get_close_matches(name, [*NAMES, *NAMES.values()], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(NAMES)}."
        raise UnsupportedScheduler(f"There is no scheduler {name!r}; {hint}")
    made = _made(kind, own.config, FLOW_SETTINGS if flow and not hasattr(kind, "scale_noise") else {})
    if flow and not hasattr(kind, "scale_noise") and not made.config.get("use_flow_sigmas"):
        raise UnsupportedScheduler(
            f"{wanted} cannot run a flow-matching model such as {type(pipe).__name__}; choose euler, dpm++ or unipc."
        )
    if not flow and hasattr(kind, "scale_noise"):
        raise UnsupportedScheduler(
            f"{wanted} is for flow-matching models, which {type(pipe).__name__} is not here; choose euler or dpm++."
        )
    pipe.scheduler = made


def _made(kind: Any, config: Any, settings: dict[str, object]) -> Any:  # noqa: ANN401
    try:
        return kind.from_config(config, **settings)
    except Exception as error:  # a missing library, a configuration of another kind
        raise UnsupportedScheduler(
            f"{kind.__name__} cannot be made from this model's settings ({one_line(error)}); choose euler or dpm++."
        ) from error
