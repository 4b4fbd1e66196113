"""Training data of the embedded text-to-image model: rendered scenes kept as latents, and sentences drawn anew."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from rewards.shapes.render import render
from rewards.shapes.scenes import Kind, Scene, random_scene, true_spec

# The hard skills (position, two objects, three bound objects) get most of the pictures and sentences.
KINDS: dict[Kind, float] = {"single": 0.10, "two": 0.60, "count": 0.14, "three": 0.16}
PAIR_SKILLS = {"position": 0.55, "two_object": 0.27, "color_attr": 0.18}
UNCONDITIONAL = 0.1  # share of sentences dropped, so that guidance has an unconditional model


def scenes(number: int, seed: int) -> list[Scene]:
    """`number` scenes of the training split."""
    rng = Random(seed)
    kinds = rng.choices(list(KINDS), list(KINDS.values()), k=number)
    return [random_scene(rng, kind) for kind in kinds]


def pixels(pool: Sequence[Scene], seed: int) -> Tensor:
    """The pictures of `pool`, (N, 3, 64, 64) uint8."""
    rng = Random(seed)
    return torch.from_numpy(np.stack([render(scene, rng) for scene in pool])).permute(0, 3, 1, 2)


def normalised(images: Tensor) -> Tensor:
    """uint8 pictures as the VAE takes them, float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


@torch.inference_mode()
def latents(pool: Sequence[Scene], vae: AutoencoderKL, seed: int, cache: Path) -> Tensor:
    """The latents of `pool`, (N, 4, 16, 16); read from `cache` where it exists, else encoded and kept there."""
    if not cache.exists():
        parts = [
            vae.encode(normalised(pixels(pool[start : start + 64], seed + start))).latent_dist.mode()
            for start in range(0, len(pool), 64)
        ]
        torch.save(torch.cat(parts) * vae.config.scaling_factor, cache)
    return torch.load(cache)


def sentences(batch: Sequence[Scene], tokenizer: CLIPTokenizer, rng: Random) -> Tensor:
    """Token ids of a true sentence for each scene, some of them dropped; (N, 20)."""
    texts = [_sentence(scene, rng) if rng.random() >= UNCONDITIONAL else "" for scene in batch]
    length = tokenizer.model_max_length
    return tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids


def _sentence(scene: Scene, rng: Random) -> str:
    skill = rng.choices(list(PAIR_SKILLS), list(PAIR_SKILLS.values()))[0] if scene.kind == "two" else None
    return true_spec(scene, rng, skill).prompt
