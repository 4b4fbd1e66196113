"""On which device a model runs, and in which dtype.

Devices: the best there is, cuda before mps before cpu. Dtypes: on the CPU float32, exact and there also the fastest; on
an accelerator the half precision that the denoiser's weights are stored in (its makers' choice: SD3 in float16, FLUX in
bfloat16), and for weights stored in float32 bfloat16, which has the range of float32 and so cannot overflow, or float16
where the hardware lacks it.
"""

from __future__ import annotations

import difflib
from typing import Literal, TypeAlias, cast

import torch

from pipelines.errors import OutOfMemory, PipelineError
from pipelines.foreign import Pipeline
from pipelines.sources import DENOISERS, Source, safetensors_header

Offload: TypeAlias = Literal["none", "model", "sequential"]

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
OFFLOADS = ("none", "model", "sequential")
_STORED = {"F16": torch.float16, "BF16": torch.bfloat16}


def pick_device(device: str) -> torch.device:
    """The device of that name, or the best there is for ``"auto"``.

    Raises:
        PipelineError: torch knows no such device, or this machine or this build of torch has none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        where = torch.device(device)
        module = torch.get_device_module(where)
        count = module.device_count() if module.is_available() else 0
    except (RuntimeError, ValueError, TypeError) as error:
        raise PipelineError(f"Unknown device '{device}': expected auto, cuda, cuda:1, mps or cpu.") from error
    if count == 0 or (where.index or 0) >= count:
        have = f"there are only {count}" if count else "there is none (or this build of torch lacks support for it)"
        raise PipelineError(f"The device '{device}' was asked for, but {have}. Use device='auto', or 'cpu'.")
    return where


def pick_dtype(
    dtype: str | torch.dtype, device: torch.device, source: Source, variant: str | None = None
) -> torch.dtype:
    """The dtype of that name; for ``"auto"`` see the module.

    Raises:
        PipelineError: No such dtype, or one that is no float.
    """
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")
    if dtype != "auto":
        if dtype not in DTYPES:
            close = difflib.get_close_matches(dtype, DTYPES, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise PipelineError(f"Unknown dtype '{dtype}': {hint}Expected auto, float32, float16 or bfloat16.")
        return DTYPES[dtype]
    if device.type == "cpu":
        return torch.float32
    has_bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    stored = stored_dtype(source, variant)
    if stored == torch.float16 or not has_bfloat16:
        return torch.float16
    return torch.bfloat16


def stored_dtype(source: Source, variant: str | None = None) -> torch.dtype:
    """The dtype that most bytes of the denoiser's weights are stored in; float32 if that is no half precision."""
    files = [source.path]
    if not source.single_file:
        folder = next((source.path / part for part in DENOISERS if (source.path / part).is_dir()), source.path)
        files = sorted(folder.glob(f"*.{variant}*.safetensors" if variant else "*.safetensors"))
    sizes: dict[str, int] = {}
    for file in files:
        for entry in safetensors_header(file).values():
            start, end = cast("list[int]", entry["data_offsets"])
            sizes[str(entry["dtype"])] = sizes.get(str(entry["dtype"]), 0) + end - start
    return _STORED.get(max(sizes, key=lambda key: sizes[key], default="F32"), torch.float32)


def check_offload(offload: str, device: torch.device) -> None:
    """Refuse an offload that does not exist, or that has nothing to move between."""
    if offload not in OFFLOADS:
        raise PipelineError(f"Unknown offload '{offload}': expected one of {', '.join(OFFLOADS)}.")
    if offload != "none" and device.type == "cpu":
        raise PipelineError(
            f"offload='{offload}' moves parts between an accelerator and memory; use 'none' on the cpu."
        )


def place(pipe: Pipeline, device: torch.device, offload: Offload) -> None:
    """Put the pipeline on its device, or let its parts come and go.

    Raises:
        OutOfMemory: It does not fit.
    """
    try:
        if offload == "model":
            pipe.enable_model_cpu_offload(device=device)
        elif offload == "sequential":
            pipe.enable_sequential_cpu_offload(device=device)
        else:
            pipe.to(device)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"The model does not fit on {device}: use offload='model', or 'sequential' for the least memory, or "
            "dtype='float16'."
        ) from error
