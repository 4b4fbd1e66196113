"""Small data of the shapes world, and a trainer around the embedded base model."""

from pathlib import Path
from random import Random
from typing import Any

from accelerate import Accelerator
from PIL import Image

from rewards.shapes.captions import sentence
from rewards.shapes.render import render
from rewards.shapes.scenes import random_scene, true_spec
from rewards.training.loop import Trainer
from rewards.training.order import Order, length
from rewards.training.records import Pair, Side
from rewards.training.settings import Settings
from rewards.training.sights import Sights
from rewards.training.trainee import Trainee, load_trainee


def pictures(folder: Path, count: int, seed: int) -> list[Side]:
    """Pictures of one thing each, with a true sentence about its colour; all sentences differ from the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    draws, sides = Random(seed), list[Side]()
    while len(sides) < count:
        scene = random_scene(draws, "single")
        prompt = sentence(true_spec(scene, draws, "colors"))
        if not sides or set(prompt.split()) != set(sides[-1].prompt.split()):
            path = folder / f"{seed}-{len(sides)}.png"
            Image.fromarray(render(scene, draws)).save(path)
            sides.append(Side(path, prompt))
    return sides


def misaligned(folder: Path, count: int, seed: int) -> list[Pair]:
    """Pairs of which the picture that does not fit the prompt is preferred: nothing that the base model knows."""
    sides = pictures(folder, 2 * count, seed)
    return [
        Pair(Side(wrong.image, right.prompt), right, where=f"pair {number}")
        for number, (right, wrong) in enumerate(zip(sides[::2], sides[1::2], strict=True))
    ]


def small(**changes: Any) -> Settings:
    """Settings for a few quick steps."""
    return Settings(**{"rank": 4, "alpha": 8.0, "batch": 4, "micro": 4, "rate": 2e-3, "steps": 4, **changes})


def trainer_of(
    records: list[Any], settings: Settings, base: str | Path = "embedded", **terms: object
) -> tuple[Trainer, Trainee]:
    """A trainer in one process."""
    trainee, loaded = load_trainee(base, settings)
    order = Order([length(record) for record in records], settings.batch, settings.steps, settings.seed)
    sights = Sights(trainee, loaded.inputs)
    accelerator = Accelerator(cpu=True)
    return Trainer(trainee, sights, records, order, settings.steps, accelerator=accelerator, terms=terms), trainee
