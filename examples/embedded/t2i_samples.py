"""Candidates of the embedded model for training prompts, with verdicts: what the embedded reward learns to rank.

    python t2i_samples.py pipelines/embedded --out runs/samples --prompts 750 --candidates 8

Writes one file for each 60 prompts; files that exist are left alone, so an interrupted run goes on where it stopped.
Arrays of a file, row by row the same picture: `images` (N, 64, 64, 3) uint8, `prompts`, `skills`, `seeds`, `correct`,
`strict`, `scores`, and `objects`, a JSON list of what the verifier found.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from t2i_sampling import generate, load

from rewards.shapes import Spec
from rewards.shapes.scenes import random_spec
from rewards.shapes.verifier import verify_batch

PROMPTS_A_FILE = 60
SKILLS = {
    "position": 0.28,
    "two_object": 0.20,
    "three_attr": 0.17,
    "color_attr": 0.13,
    "counting": 0.13,
    "colors": 0.04,
    "single_object": 0.05,
}


def training_prompts(number: int, seed: int) -> list[Spec]:
    """Sentences of the training split, mostly of the hard skills."""
    rng = Random(seed)
    return [random_spec(rng, skill, "train") for skill in rng.choices(list(SKILLS), list(SKILLS.values()), k=number)]


def write(
    path: Path, pipe: StableDiffusionPipeline, specs: Sequence[Spec], seeds: Sequence[int], guidance: float
) -> None:
    """One candidate and verdict for each spec and seed."""
    prompts = [spec.prompt for spec in specs]
    images = generate(pipe, prompts, seeds, guidance=guidance).images
    verdicts = verify_batch(images.astype(np.float32) / np.float32(255), specs)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        images=images,
        prompts=np.array(prompts),
        skills=np.array([spec.skill for spec in specs]),
        seeds=np.array(seeds),
        correct=np.array([verdict.correct for verdict in verdicts]),
        strict=np.array([verdict.strict for verdict in verdicts]),
        scores=np.array([verdict.score for verdict in verdicts], np.float32),
        objects=np.array([json.dumps([asdict(item) for item in verdict.objects]) for verdict in verdicts]),
    )
    partial.rename(path)
    print(path, f"{np.mean([verdict.correct for verdict in verdicts]):.3f} pass", flush=True)


def main() -> None:
    """Write the files that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=750)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    pipe = load(arguments.model)
    specs = training_prompts(arguments.prompts, arguments.seed)
    for start in range(0, len(specs), PROMPTS_A_FILE):
        path = arguments.out / f"samples-{arguments.seed:02d}-{start:05d}.npz"
        if not path.exists():
            chosen = [spec for spec in specs[start : start + PROMPTS_A_FILE] for _ in range(arguments.candidates)]
            # seeds above a million, so that no training candidate shares its noise with an evaluation
            seeds = [
                1_000_000 * (arguments.seed + 1) + start * arguments.candidates + row for row in range(len(chosen))
            ]
            write(path, pipe, chosen, seeds, arguments.guidance)


if __name__ == "__main__":
    main()
