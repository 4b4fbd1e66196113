"""The recorded cases of the official implementation, and how our parts are put together to repeat one."""

import dataclasses
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rewards.llava.backbone import Backbone, Inputs, Tokens, batch, last_rows
from rewards.llava.decoder import read
from rewards.llava.families import Base, load_base
from rewards.llava.heads import PublishedHead, build_head, pool_mean
from rewards.llava.official import Official, apply, is_head, read_official

GOLDENS = Path(__file__).parent / "goldens"
MANIFEST: dict[str, Any] = json.loads((GOLDENS / "cases.json").read_text(encoding="utf-8"))
CASES: dict[str, dict[str, Any]] = {case["id"]: case for case in MANIFEST["cases"]}
SIDES = [(name, side) for name, case in CASES.items() for side in case["sides"]]


def tolerance(name: str) -> dict[str, float]:
    """Absolute and relative tolerance of an array, by the manifest."""
    found = MANIFEST["tolerances"][name]
    return {"atol": found["atol"], "rtol": found["rtol"]}


def picture(name: str) -> Image.Image:
    """A recorded picture."""
    return opened(GOLDENS / "images" / f"{name}.png")


def opened(path: Path) -> Image.Image:
    """The picture in a file, which is closed again."""
    with Image.open(path) as image:
        image.load()
        return image


def qwen_base(into: Path) -> Path:
    """The packed Qwen base model, unpacked."""
    with tarfile.open(GOLDENS / "qwen/base.tar.xz") as archive:
        archive.extractall(into, filter="data")
    return into / "base"


@dataclass(frozen=True)
class Model:
    """A backbone with a checkpoint applied, its inputs and its head."""

    checkpoint: Official
    backbone: Backbone
    inputs: Inputs
    head: PublishedHead


@dataclass(frozen=True)
class Run:
    """What our parts give for one side of a case."""

    tokens: Tokens
    visual: list[Tensor]
    last: Tensor  # (B, H) final-norm state at the last position
    head_input: Tensor  # (B, H)
    outputs: Tensor  # (B, d)


class Library:
    """Loads each checkpoint once."""

    def __init__(self, unpack: Callable[[], Path]) -> None:
        self._unpack = unpack
        self.model = cache(self._model)

    def base_folder(self, case: dict[str, Any]) -> Path:
        if case["full_finetune"]:
            return GOLDENS / case["adapter"]
        return self._unpack() if case["backbone"] == "qwen" else GOLDENS / case["base"]

    def _model(self, adapter: str) -> Model:
        case = next(case for case in CASES.values() if case["adapter"] == adapter)
        checkpoint = read_official(GOLDENS / adapter)
        base: Base = load_base(self.base_folder(case), skip=is_head)
        apply(checkpoint, base.backbone, projector=case["ft_projector"])
        return Model(checkpoint, base.backbone, base.inputs, build_head(checkpoint.head, base.backbone.eps))


def inputs_of(model: Model, case: dict[str, Any]) -> Inputs:
    """The inputs with the case's number of crops."""
    if case["num_crops"] is None:
        return model.inputs
    crops: Inputs = dataclasses.replace(model.inputs, num_crops=case["num_crops"])  # type: ignore[type-var]
    return crops


def arrays(case: dict[str, Any], side: str) -> dict[str, Tensor]:
    """The recorded arrays of one side, without the side's prefix."""
    with np.load(GOLDENS / case["file"]) as file:
        names = [name for name in file if name.startswith(f"{side}_")]
        return {name.removeprefix(f"{side}_"): torch.from_numpy(file[name]) for name in names}


def prompts_of(case: dict[str, Any], side: str) -> list[str]:
    """The raw prompts of one side."""
    return [sample["caption" + ("" if side == "x" else f"_{side}")] for sample in case["samples"]]


def tokens_of(model: Model, case: dict[str, Any], side: str, padding: Literal["left", "right"] = "left") -> Tokens:
    """One side as a batch of tokens, padded as the official code does."""
    inputs = inputs_of(model, case)
    names = [sample["image" + ("" if side == "x" else f"_{side}")] for sample in case["samples"]]
    pictures = [inputs.picture(opened(GOLDENS / name)) for name in names]
    rows = [inputs.ids(prompt, seen) for prompt, seen in zip(prompts_of(case, side), pictures, strict=True)]
    return batch(rows, pictures, inputs.pad_id, side=padding)


@torch.no_grad()
def run(model: Model, case: dict[str, Any], tokens: Tokens, *, official: bool) -> Run:
    """One forward pass, read as the case asks."""
    backbone, head = model.backbone, model.head
    visual = backbone.project(backbone.features(tokens.pictures), tokens.pictures)
    inputs = backbone.embed(tokens, visual, official=official)
    sight = backbone.sight(tokens, visual, official=official)
    rows = last_rows(tokens.mask)
    last = read(backbone, inputs, rows=rows)[:, 0]
    layer = None if case["layer_id"] == 32 else case["layer_id"]
    if case["mean_hidden_state"]:
        head_input = pool_mean(head.refine(read(backbone, inputs, layer=layer), sight), tokens.mask)
    else:
        head_input = head.refine(read(backbone, inputs, rows=rows, layer=layer), sight)[:, 0]
    return Run(tokens, visual, last, head_input, head.value_head(head_input))
