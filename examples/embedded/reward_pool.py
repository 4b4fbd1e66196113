"""Pictures for training the embedded LLaVA-Reward: renders, good and bad, sharp and as a decoder would paint them.

A verifier's taste is about borderline shapes, so half of the pictures get things that are half one shape and half
another, notched or tinted; half of all go through the embedded model's autoencoder with a little latent noise. The
labels are never what was meant: they are what the exact verifier's detector finds in the finished picture.

    python reward_pool.py OUT --split train --shards 0:20
    python reward_pool.py OUT --split test --shards 0:1

Each shard of 2000 is a file OUT/SPLIT-000.npz with images (n, 64, 64, 3) uint8 and objects (n, 8, 5) float32: shape (6
for a blob), colour, x, y, area; rows of -1 fill up. A shard is a function of its split and number alone.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

import pipelines
from rewards.shapes.captions import COLORS, SHAPES
from rewards.shapes.detector import Detected, detect
from rewards.shapes.render import RGB, render, shape_mask
from rewards.shapes.scenes import SIZE, Scene, Split, Thing, held_out, random_scene

SHARD = 2000
BATCH = 50
MAX_OBJECTS = 8

Bytes = NDArray[np.uint8]


def main() -> None:
    """Write the shards asked for, skipping those that exist."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--shards", default="0:1", help="first:stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    vae = load_vae()
    first, stop = map(int, options.shards.split(":"))
    for number in range(first, stop):
        path = options.out / f"{options.split}-{number:03}.npz"
        if not path.exists():
            images, objects = shard(options.split, number, vae)
            np.savez(path.with_suffix(".tmp.npz"), images=images, objects=objects)
            path.with_suffix(".tmp.npz").rename(path)
            print(path, flush=True)


def load_vae() -> Any:  # noqa: ANN401 (diffusers has no types)
    """The embedded model's autoencoder."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(Path(pipelines.__file__).parent / "embedded" / "vae").eval()


def shard(split: Split, number: int, vae: Any) -> tuple[Bytes, NDArray[np.float32]]:  # noqa: ANN401
    """Pictures and their labels; see the module."""
    rng = Random(f"{split}-{number}")
    images: list[Bytes] = []
    objects: list[NDArray[np.float32]] = []
    for _ in range(SHARD // BATCH):
        batch = np.stack([picture(split, rng) for _ in range(BATCH)])
        half = BATCH // 2
        batch[:half] = repainted(batch[:half], vae, rng)
        images.append(batch)
        objects += [table(found) for found in detect(batch.astype(np.float32) / 255)]
    return np.concatenate(images), np.stack(objects)


def table(found: Sequence[Detected]) -> NDArray[np.float32]:
    """Detected components as numbers, (8, 5); see the module."""
    rows = np.full((MAX_OBJECTS, 5), -1, np.float32)
    for row, item in zip(rows, found, strict=False):
        shape = SHAPES.index(item.shape) if item.shape in SHAPES else len(SHAPES)
        row[:] = shape, COLORS.index(item.color), item.x, item.y, item.area
    return rows


def picture(split: Split, rng: Random) -> Bytes:
    """One picture, (64, 64, 3)."""
    scene = random_scene(rng, split=split) if rng.random() < 0.6 else crowd(split, rng)
    image = render(scene, rng) if rng.random() < 0.5 else damaged(scene, rng)
    if rng.random() < 0.5:
        blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.0)))
        image = np.asarray(blurred, np.uint8)
    return image


def crowd(split: Split, rng: Random) -> Scene:
    """One to five things, often alike in shape or colour, in no prescribed arrangement."""
    while True:
        shapes = rng.sample(SHAPES, rng.choice((1, 2, 2, 3)))
        colors = rng.sample(COLORS, rng.choice((1, 2, 2, 3)))
        number = rng.choice((1, 2, 2, 3, 3, 4, 4, 5))
        kinds = [Thing(rng.choice(shapes), rng.choice(colors)) for _ in range(number)]
        if number > 1 and held_out(kinds) and split == "train":
            continue
        things = spread(kinds, rng)
        if things:
            return Scene("two", tuple(things))


def spread(kinds: Sequence[Thing], rng: Random) -> list[Thing]:
    """`kinds` at places where none, or in some pictures hardly one, touches another; empty if there was no room."""
    top = (14.0, 11.5, 9.8, 8.8, 8.0)[len(kinds) - 1]
    gap = rng.choice((2.5, 2.5, 1.0))
    placed: list[Thing] = []
    for kind in kinds:
        for _ in range(40):
            radius = rng.uniform(0.7 * top, top)
            x, y = (rng.uniform(1.2 * radius, SIZE - 1.2 * radius) for _ in range(2))
            if all(math.hypot(x - other.x, y - other.y) > 1.1 * (radius + other.radius) + gap for other in placed):
                placed.append(replace(kind, x=x, y=y, radius=radius, angle=rng.uniform(-0.3, 0.3)))
                break
        else:
            return []
    return placed


def damaged(scene: Scene, rng: Random) -> Bytes:
    """`scene` with some things morphed towards another shape, notched, or tinted with another colour."""
    image = render(replace(scene, things=()), rng).astype(np.float32) / 255
    for thing in scene.things:
        coverage = shape_mask(thing)
        if rng.random() < 0.7:
            coverage = morphed(thing, coverage, rng)
        color = np.array(RGB[thing.color], np.float32) / 255
        if rng.random() < 0.2:
            other = np.array(RGB[rng.choice(COLORS)], np.float32) / 255
            color = color + rng.uniform(0, 0.6) * (other - color)
        image += (color * rng.uniform(0.93, 1.05) - image) * coverage[..., None]
    return np.asarray(np.clip(image, 0, 1) * 255 + 0.5, np.uint8)


def morphed(thing: Thing, coverage: NDArray[np.float32], rng: Random) -> NDArray[np.float32]:
    """Coverage part of the way to another shape, blurred and cut at a level, or with a bite taken out."""
    if rng.random() < 0.25:
        reach, turn = thing.radius * rng.uniform(0.3, 1.0), rng.uniform(0, 2 * math.pi)
        bite = replace(thing, shape="circle", radius=thing.radius * rng.uniform(0.2, 0.55))
        bite = replace(bite, x=thing.x + reach * math.cos(turn), y=thing.y + reach * math.sin(turn))
        return np.asarray(coverage * (1 - shape_mask(bite)), np.float32)
    share = rng.uniform(0, 0.6)
    other = shape_mask(replace(thing, shape=rng.choice(SHAPES), angle=thing.angle + rng.uniform(-0.3, 0.3)))
    mixture = np.asarray(((1 - share) * coverage + share * other) * 255, np.uint8)
    blend = Image.fromarray(mixture).filter(ImageFilter.BoxBlur(rng.uniform(0, 2)))
    level = rng.uniform(0.35, 0.6)
    return np.asarray(
        np.clip((np.asarray(blend, np.float32) / 255 - level) * rng.uniform(2, 8) + 0.5, 0, 1), np.float32
    )


@torch.inference_mode()
def repainted(images: Bytes, vae: Any, rng: Random) -> Bytes:  # noqa: ANN401
    """`images` (n, 64, 64, 3) through the autoencoder, with latent noise of up to 0.4 standard deviations."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = vae.encode(pixels).latent_dist.mean
    generator = torch.Generator().manual_seed(rng.getrandbits(31))
    noise = torch.randn(latents.shape, generator=generator)
    strength = 0.4 * torch.rand(len(latents), 1, 1, 1, generator=generator).square()
    painted = vae.decode(latents + noise * strength * latents.std()).sample
    return ((painted.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    main()
