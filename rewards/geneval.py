"""Are the objects there that the prompt names, in their number, colours and places? After GenEval, but not GenEval.

This is not the official metric, and its numbers must not be compared with published ones: GenEval detects with
Mask2Former and tells colours with CLIP on masked crops; here OWLv2, an open-vocabulary detector (155 M parameters,
Apache-2.0), does both.

Requirements and geometry are GenEval's. Each of these gives a part from 0 to 1, and the score is their mean, so that it
is 1 exactly when GenEval's rule would say "correct" of these boxes:

    min(found, count) / count                  objects of a class
    min(coloured, count) / count               of them, among the most confident `count`, those of the colour
    share of pairs that stand so               of the most confident objects, for "left of" and the like
    1 if found < count, else (count − 1) / found        of what is excluded

A is left of B if d = max(|a − b| − 0.1 (size of A + size of B), 0) · sign(a − b), divided by |a − b|, is below −1/2
along x, where a and b are the centres of the boxes; and likewise the other three.

References: Ghosh et al., GenEval, NeurIPS 2023; Minderer et al., Scaling open-vocabulary object detection, NeurIPS
2023; Liu et al., Flow-GRPO, 2025, for scores between 0 and 1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from rewards.devices import device_of, dtype_of
from rewards.errors import RewardError
from rewards.geneval_prompts import RELATIONS, Scene, Wanted, read_metadata, read_prompt
from rewards.single import Look, SingleReward

CHECKPOINT = "google/owlv2-base-patch16-ensemble"
THRESHOLD = 0.2
_MARGIN = 0.1  # of the boxes' sizes, by which centres must differ


class Found(NamedTuple):
    """An object: left, top, right, bottom in pixels; how sure the detector is, 0 to 1; its colour if it was asked."""

    box: tuple[float, float, float, float]
    confidence: float
    colour: str = ""


Objects: TypeAlias = Mapping[str, Sequence[Found]]  # by class, the most confident first
Detector: TypeAlias = Callable[[Image.Image, Scene], Objects]


@dataclass(frozen=True)
class SceneScore:
    """How much of its prompt's scene a picture shows, for `SingleReward`.

    Attributes:
        detect: Finds the objects of a scene in an RGB picture.
        scenes: Of prompts that are known beforehand.
        strict: Whether only a complete scene counts, with 1, and all else with 0, as in GenEval.
    """

    detect: Detector
    scenes: Mapping[str, Scene]
    strict: bool = False

    def __call__(self, look: Look, prompt: str) -> Tensor:
        """The score, a tensor ()."""
        assert isinstance(look, Image.Image), "only PIL images come here"
        scene = self._scene(prompt)
        score = fulfilment(scene, self.detect(look.convert("RGB"), scene))
        return torch.tensor(float(score == 1) if self.strict else score)

    def check_prompt(self, prompt: str) -> None:
        """Raise `RewardError` if the prompt can neither be read nor is known."""
        self._scene(prompt)

    def _scene(self, prompt: str) -> Scene:
        return self.scenes.get(prompt) or read_prompt(prompt)


def load_geneval(
    checkpoint: str | Path = CHECKPOINT,
    *,
    metadata: str | Path = "",
    threshold: float = THRESHOLD,
    strict: bool = False,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
) -> SingleReward:
    """Object checks with OWLv2.

    Args:
        checkpoint: Folder or hub name of an OWLv2 in transformers' layout.
        metadata: A file in the format of GenEval's evaluation_metadata.jsonl; prompts that it does not have are read.
        threshold: The least confidence of an object; the default is usual for this detector and not calibrated.
        strict: 1 for a complete scene and 0 for any other, instead of the share.
        device: A GPU if None and there is one.
        dtype: "float32", "bfloat16" or "float16".

    Raises:
        RewardError: No such checkpoint, file, device or dtype, or a threshold outside (0, 1).
    """
    if not 0 < threshold < 1:
        raise RewardError(f"Got threshold {threshold}; expected a confidence between 0 and 1.")
    from rewards.geneval_owl import load_owl

    scenes = read_metadata(metadata) if metadata else {}
    number = dtype_of(dtype)
    owl = load_owl(checkpoint, threshold, device=device_of(device), dtype=number)
    files = (*owl.files, *([Path(metadata)] if metadata else []))
    score = SceneScore(owl, scenes, bool(strict))
    return SingleReward("geneval", score, differentiable=False, files=files, settings=f"{threshold} {strict} {number}")


def fulfilment(scene: Scene, objects: Objects) -> float:
    """The mean of all parts, 0 to 1; see the module."""
    shown = [list(objects.get(wanted.name, ()))[: wanted.count] for wanted in scene.include]
    parts: list[float] = []
    for wanted, those in zip(scene.include, shown, strict=True):
        parts.append(len(those) / wanted.count)
        if wanted.colour:
            parts.append(sum(one.colour == wanted.colour for one in those) / wanted.count)
        if wanted.relation:
            parts.append(_standing(wanted, those, shown[wanted.target]))
    for unwanted in scene.exclude:
        found = len(objects.get(unwanted.name, ()))
        parts.append(1.0 if found < unwanted.count else (unwanted.count - 1) / found)
    return sum(parts) / len(parts)


def relations(one: Found, other: Found) -> set[str]:
    """How `one` stands to `other`: none, one or two of `RELATIONS`."""
    away, beyond = [], []
    for low, high in ((0, 2), (1, 3)):  # along x, along y
        away.append((one.box[low] + one.box[high] - other.box[low] - other.box[high]) / 2)
        sizes = one.box[high] - one.box[low] + other.box[high] - other.box[low]
        beyond.append(math.copysign(max(abs(away[-1]) - _MARGIN * sizes, 0.0), away[-1]))
    distance = math.hypot(*away)
    if all(abs(part) < 1e-3 for part in beyond):
        return set()
    along_x, along_y = (part / distance for part in beyond)
    holds = (along_x < -0.5, along_x > 0.5, along_y < -0.5, along_y > 0.5)
    return {relation for relation, true in zip(RELATIONS, holds, strict=True) if true}


def _standing(wanted: Wanted, those: Sequence[Found], targets: Sequence[Found]) -> float:
    """The share of pairs for which the relation holds; 0 if one side is missing."""
    pairs = [wanted.relation in relations(one, other) for one in those for other in targets]
    return sum(pairs) / len(pairs) if pairs else 0.0
