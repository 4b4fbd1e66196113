"""Candidates of the embedded model for many prompts at once, with previews on the way, and their verdicts.

`BestOfNPipeline` is bound to one prompt; an evaluation has a hundred, so here a batch mixes them. The mathematics is
that of `StableDiffusionPipeline`: the same seed gives the same picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

BATCH = 32  # on a CPU
GPU_BATCH = 512


@dataclass(frozen=True)
class Candidates:
    """Finished pictures and what they looked like on the way.

    Attributes:
        images: (N, 64, 64, 3) uint8.
        previews: step → the x0 estimate after that many steps, decoded; (N, 64, 64, 3) uint8.
    """

    images: NDArray[np.uint8]
    previews: dict[int, NDArray[np.uint8]]


def load(folder: Path) -> StableDiffusionPipeline:
    """The pipeline in `folder`, silent, on a GPU where there is one."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    pipe.unet.to(memory_format=torch.channels_last)  # a fifth faster on a CPU
    return pipe


@torch.inference_mode()
def generate(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 20,
    guidance: float = 2.0,
    look_at: Sequence[int] = (),
) -> Candidates:
    """One candidate for each prompt and seed."""
    batch = BATCH if pipe.device.type == "cpu" else GPU_BATCH
    parts = [
        _denoise(pipe, prompts[start : start + batch], seeds[start : start + batch], steps, guidance, look_at)
        for start in range(0, len(prompts), batch)
    ]
    previews = {step: np.concatenate([_decode(pipe, looks[step]) for _, looks in parts]) for step in look_at}
    return Candidates(np.concatenate([_decode(pipe, latents) for latents, _ in parts]), previews)


def _denoise(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    look_at: Sequence[int],
) -> tuple[Tensor, dict[int, Tensor]]:
    """Clean latents, and the x0 estimates after the steps of `look_at`; each (N, 4, 16, 16)."""
    text = pipe.text_encoder(_tokens(pipe, [""] * len(prompts) + list(prompts))).last_hidden_state
    noises = [torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    latents = torch.cat(noises).to(pipe.device)
    pipe.scheduler.set_timesteps(steps)
    looks: dict[int, Tensor] = {}
    for step, timestep in enumerate(pipe.scheduler.timesteps, start=1):
        without, given = pipe.unet(torch.cat([latents, latents]), timestep, text).sample.chunk(2)
        moved = pipe.scheduler.step(without + guidance * (given - without), timestep, latents)
        latents = moved.prev_sample
        if step in look_at:
            looks[step] = moved.pred_original_sample
    return latents, looks


def _tokens(pipe: StableDiffusionPipeline, prompts: Sequence[str]) -> Tensor:
    tokenizer = pipe.tokenizer
    length = tokenizer.model_max_length
    return tokenizer(
        prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids.to(pipe.device)


def _decode(pipe: StableDiffusionPipeline, latents: Tensor) -> NDArray[np.uint8]:
    images = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    pixels = ((images / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()
