"""The table: pipeline families × the schedulers that each supports, and what a stock run of them is."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from unittest import mock

import torch
from tiny import CALL
from torch import Tensor

from pipelines.diffusers_sampler import DiffusersSampler
from pipelines.noise import step_noise

PipeOf: TypeAlias = Callable[[str], Any]
PROMPT = "a red circle left of a blue square"


@dataclass(frozen=True)
class Case:
    """A family with a scheduler: the family's own if no class is named.

    `stochastic`: its steps draw noise. `size`: height and width, another for each family.
    """

    family: str
    scheduler: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    stochastic: bool = False
    call: dict[str, Any] = field(default_factory=dict)
    fresh: bool = False

    def __str__(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in {**self.config, **self.call}.items())
        return f"{self.family}-{self.scheduler.removesuffix('Scheduler') or 'own'}{'-' if options else ''}{options}"

    def pipe(self, pipe: Any) -> Any:
        """A shallow copy of the family's pipeline with this scheduler."""
        import copy

        import diffusers

        pipe = copy.copy(pipe)
        if self.scheduler:
            base = {} if self.fresh else dict(pipe.scheduler.config)
            base.pop("_use_default_values", None)  # diffusers ignores what this lists, even if it was changed since
            vars(pipe)["scheduler"] = getattr(diffusers, self.scheduler).from_config({**base, **self.config})
        return pipe

    def options(self, height: int, width: int) -> dict[str, Any]:
        return {**CALL[self.family], **self.call, "height": height, "width": width}


FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SDE = {"algorithm_type": "sde-dpmsolver++"}
STATIC = {"use_dynamic_shifting": False, "shift": 3.0}

CASES = [
    Case("sd"),
    Case("sd", "DDIMScheduler", {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}),
    Case("sd", "EulerDiscreteScheduler"),
    Case("sd", "EulerDiscreteScheduler", {"use_karras_sigmas": True, "prediction_type": "v_prediction"}),
    Case("sd", "EulerAncestralDiscreteScheduler", stochastic=True),
    Case("sd", "DPMSolverMultistepScheduler"),
    Case("sd", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "solver_order": 3}),
    Case("sd", "DPMSolverMultistepScheduler", SDE, stochastic=True),
    Case("sd", "DPMSolverSinglestepScheduler", {"lower_order_final": True}),
    Case("sd", "UniPCMultistepScheduler"),
    Case("sd", "DEISMultistepScheduler"),
    Case("sd", "DDPMScheduler", stochastic=True),
    Case("sd", "LCMScheduler", stochastic=True),
    Case("sd", "TCDScheduler"),
    Case("sd", "SASolverScheduler", stochastic=True),
    Case("sdxl"),
    Case("sdxl", "EulerAncestralDiscreteScheduler", stochastic=True),
    Case("sdxl", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    Case("sdxl", "UniPCMultistepScheduler"),
    Case("sd3"),
    Case("sd3", "FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, stochastic=True),
    Case("sd3", "UniPCMultistepScheduler", FLOW, fresh=True),
    Case("flux"),
    Case("flux", "FlowMatchEulerDiscreteScheduler", STATIC),
    Case("flux", "FlowMatchEulerDiscreteScheduler", {"time_shift_type": "linear"}),
    Case("flux", "FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, stochastic=True),
    Case("flux", call={"true_cfg_scale": 2.0, "negative_prompt": "dog"}),
    Case("pixart"),
    Case("pixart", "DDIMScheduler"),
    Case("pixart", "EulerDiscreteScheduler"),
    Case("pixart", "DPMSolverMultistepScheduler", SDE, stochastic=True),
    Case("sana"),
    Case("sana", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, fresh=True),
    Case("sana", "UniPCMultistepScheduler", FLOW, fresh=True),
    Case("z-image"),
    Case("z-image", "FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}),
    Case("z-image", "FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, stochastic=True),
    Case("qwen-image"),
    Case("qwen-image", "FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, stochastic=True),
    Case("wan"),
    Case("wan", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, fresh=True),
    Case("wan", "FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, stochastic=True, fresh=True),
    Case("wan", "DPMSolverMultistepScheduler", FLOW, fresh=True),
]
FAMILIES = [Case(family) for family in CALL]


def sampler_of(
    pipe: Any, case: Case, *, steps: int, size: tuple[int, int] = (32, 64), **options: Any
) -> DiffusersSampler:
    return DiffusersSampler(pipe, steps=steps, prompt=PROMPT, **options, **case.options(*size))


def stock(pipe: Any, case: Case, seeds: Sequence[int], *, steps: int, size: tuple[int, int] = (32, 64)) -> Tensor:
    """What the pipeline itself makes, as users call it; only the noise of stochastic steps is put in by hand."""
    copies = "num_videos_per_prompt" if case.family == "wan" else "num_images_per_prompt"
    module = importlib.import_module(type(pipe.scheduler).__module__)
    with mock.patch.object(module, "randn_tensor", _by_hand(seeds), create=True):
        images: Tensor = pipe(
            PROMPT,
            **case.options(*size),
            **{copies: len(seeds)},
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            num_inference_steps=steps,
            output_type="pt",
            return_dict=False,
        )[0]
    return images


def _by_hand(seeds: Sequence[int]) -> Any:
    """A stand-in for the scheduler module's `randn_tensor`: the k-th call is the noise of step k."""
    calls = iter(range(1000))

    def randn_tensor(shape: Sequence[int], **kwargs: object) -> Tensor:
        return step_noise(seeds, next(calls), shape[1:])

    return randn_tensor
