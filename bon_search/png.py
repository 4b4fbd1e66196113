"""A picture carries its recipe: PNG text chunks that people's tools read.

`parameters` is the form that AUTOMATIC1111's web UI writes and most galleries parse; `bon_search` holds the same, and
everything else, as JSON.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

    from bon_search.result import Candidate, Recipe

SAMPLERS = {  # diffusers class → the name that people know
    "DDIMScheduler": "DDIM",
    "DDPMScheduler": "DDPM",
    "EulerDiscreteScheduler": "Euler",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "DPMSolverSinglestepScheduler": "DPM++ 2S",
    "UniPCMultistepScheduler": "UniPC",
    "LCMScheduler": "LCM",
    "FlowMatchEulerDiscreteScheduler": "Euler",
}


def text_chunks(candidate: Candidate, recipe: Recipe) -> PngInfo:
    """The text chunks of one candidate's PNG."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", parameters(candidate, recipe))
    record = {"seed": candidate.seed, "score": number(candidate.score), "recipe": asdict(recipe)}
    info.add_text("bon_search", json.dumps(record, ensure_ascii=True))
    return info


def parameters(candidate: Candidate, recipe: Recipe) -> str:
    """Prompt, negative prompt and settings in the three lines that A1111 writes."""
    width, height = candidate.image.size
    settings = {
        "Steps": recipe.steps,
        "Sampler": SAMPLERS.get(recipe.scheduler, recipe.scheduler.removesuffix("Scheduler")),
        "CFG scale": recipe.call.get("guidance_scale"),
        "Seed": candidate.seed,
        "Size": f"{width}x{height}",
        "Model hash": recipe.model_revision[:10] or None,
        "Model": recipe.model.replace(",", " "),
        "Reward": recipe.reward.replace(",", " "),
        "Score": None if math.isnan(candidate.score) else f"{candidate.score:.6g}",
        "Version": f"bon-search {recipe.versions.get('bon-search', '')}".strip(),
    }
    negative = recipe.call.get("negative_prompt")
    lines = [recipe.prompt, *([f"Negative prompt: {negative}"] if negative else [])]
    lines.append(", ".join(f"{key}: {value}" for key, value in settings.items() if value is not None))
    return "\n".join(lines)


def number(score: float) -> float | None:
    """A score as JSON can say it: None for NaN."""
    return None if math.isnan(score) else score
