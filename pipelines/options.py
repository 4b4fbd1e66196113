"""The options of a pipeline's call: checked once, and completed for n particles."""

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipelines.errors import PipelineError, UnsupportedSize
from pipelines.microbatch import is_out_of_memory

OURS = (
    "prompt",
    "num_inference_steps",
    "generator",
    "latents",
    "output_type",
    "return_dict",
    "callback",
    "callback_steps",
    "callback_on_step_end",
    "callback_on_step_end_tensor_inputs",
)
UNBROKEN = (
    "adapter_conditioning_factor",
    "cfg_trunc_ratio",
    "control_guidance_end",
    "control_guidance_start",
    "denoising_end",
    "denoising_start",
    "skip_guidance_layers",
)
"""Options by which a pipeline counts the steps of its own loop, which begins anew in each part of a run."""

COPIES = re.compile(r"num_\w+_per_prompt")
SHAPE_TROUBLE = re.compile(
    r"must match|size of tensor|shape '.*' is invalid|should be divisible|output size is too small"
)


class Options:
    """What is passed to the pipeline at each call.

    Args:
        pipe: a diffusers pipeline.
        prompt: the text.
        call: options by name.

    Raises:
        PipelineError: an option that the pipeline does not have, that the sampler sets itself, or that only an unbroken
            run can follow.
        UnsupportedSize: a height or width below 1.
    """

    def __init__(self, pipe: Any, prompt: str, call: Mapping[str, object]) -> None:  # noqa: ANN401
        if not isinstance(prompt, str):
            raise PipelineError(f"`prompt` must be one string, but is {prompt!r}; make one sampler per prompt.")
        self.name = type(pipe).__name__
        known = inspect.signature(type(pipe).__call__).parameters
        for option, value in call.items():
            self._check_name(option, list(known))
            if option in UNBROKEN and value != known[option].default:
                raise PipelineError(
                    f"`{option}` goes by the place in one unbroken run of {self.name}, but a sampler stops and resumes "
                    "runs; leave it out."
                )
        self.size = {side: call[side] for side in ("height", "width") if call.get(side) is not None}
        for side, value in self.size.items():
            if not isinstance(value, int) or value < 1:
                raise UnsupportedSize(f"`{side}` must be a positive number of pixels, but is {value!r}.")
        self.call = {"prompt": prompt, **call}
        self.copies = next((option for option in known if COPIES.fullmatch(option)), None)

    def _check_name(self, option: str, known: list[str]) -> None:
        if option in OURS or COPIES.fullmatch(option):
            raise PipelineError(
                f"`{option}` is set by the sampler itself and cannot be given as an option of the call."
            )
        if option not in known:
            close = difflib.get_close_matches(option, [name for name in known if name not in OURS], n=1)
            hint = f"; did you mean `{close[0]}`?" if close else f"; its options are {', '.join(known)}."
            raise PipelineError(f"{self.name} has no option `{option}`{hint}")

    def for_n(self, n: int) -> dict[str, object]:
        """The call for n particles of the one prompt, encoded once where the pipeline can copy it."""
        if self.copies is not None:
            return {**self.call, self.copies: n}
        return {
            name: [text] * n if isinstance(text, str) and "prompt" in name else text for name, text in self.call.items()
        }

    def needs_size_check(self) -> bool:
        """Whether the pipeline might round the size: models cut pictures into blocks of at most 64 pixels."""
        return any(isinstance(value, int) and value % 64 for value in self.size.values())

    def check_size(self, height: int, width: int) -> None:
        """Raise UnsupportedSize unless a picture of this size is what was asked for."""
        made = {"height": height, "width": width}
        if any(made[side] != value for side, value in self.size.items()):
            asked = "×".join(str(self.size.get(side, made[side])) for side in ("height", "width"))
            raise UnsupportedSize(
                f"{self.name} makes {height}×{width} pixels instead of {asked} (height×width); ask for the former, or "
                "for multiples of 64."
            )

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Turn what the pipeline finds wrong with its call into a PipelineError."""
        try:
            yield
        except PipelineError:
            raise
        except ValueError as error:
            kind = UnsupportedSize if self.size and re.search("height|width", str(error)) else PipelineError
            raise kind(f"{self.name} refuses this call: {_sentence(error)}") from error
        except RuntimeError as error:
            if is_out_of_memory(error) or not self.size or not SHAPE_TROUBLE.search(str(error)):
                raise
            asked = " and ".join(f"{side} {value}" for side, value in self.size.items())
            raise UnsupportedSize(
                f"{self.name} cannot make pictures of {asked} ({_sentence(error)}); ask for multiples of 64."
            ) from error


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") + "."
