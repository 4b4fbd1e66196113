"""The exact verifier: does a picture show what the sentence asks for?

GenEval's rules (Ghosh et al., 2023, arXiv:2310.11513) on the components that `detector` finds: each noun of the
sentence needs a component of its own with that shape and colour; a counted noun needs exactly that many; a relation
must hold between centroids along the dominant axis. Further components are allowed, except by the `strict` verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from rewards.shapes.captions import Requirement, Spec
from rewards.shapes.detector import Detected, Floats, detect
from rewards.shapes.scenes import SIZE

_MARGIN = 0.06 * SIZE  # pixels between two centroids before one counts as beside the other


@dataclass(frozen=True)
class Verdict:
    """The judgement of one picture.

    Attributes:
        correct: the picture shows what the sentence asks for.
        strict: correct, and it shows nothing else.
        score: float in [0, 1], the share of the sentence that is right; a tenth each for clean shapes and no clutter.
        objects: what was found, largest first.
        reason: why it is not correct; empty when it is.
    """

    correct: bool
    strict: bool
    score: float
    objects: tuple[Detected, ...]
    reason: str


def verify(image: Floats, spec: Spec) -> Verdict:
    """The verdict on one picture, (64, 64, 3) in [0, 1]."""
    return judge(detect(image[None])[0], spec)


def verify_batch(images: Floats, specs: Sequence[Spec]) -> tuple[Verdict, ...]:
    """The verdicts on N pictures, (N, 64, 64, 3) in [0, 1], each against its own spec."""
    return tuple(judge(objects, spec) for objects, spec in zip(detect(images), specs, strict=True))


def judge(objects: Sequence[Detected], spec: Spec) -> Verdict:
    """The verdict on a picture that shows `objects`."""
    slots = [_matches(requirement, objects) for requirement in spec.include]
    checks = [
        *(_presence(requirement, slot, objects) for requirement, slot in zip(spec.include, slots, strict=True)),
        *_distinctness(spec, slots),
        *_relation(spec, slots, objects),
        *_surplus(spec, slots),
    ]
    reasons = [reason for _, reason in checks if reason]
    correct = not reasons
    excess = len(objects) - spec.wanted
    quality = float(np.mean([item.overlap for item in objects])) if objects else 0.0
    score = 0.8 * float(np.mean([part for part, _ in checks])) + 0.1 * quality + 0.1 / (1 + abs(excess))
    return Verdict(correct, correct and excess == 0, score, tuple(objects), "; ".join(reasons))


_Check = tuple[float, str]  # fulfilled share in [0, 1], and what is wrong


def _matches(requirement: Requirement, objects: Sequence[Detected]) -> list[int]:
    return [
        index
        for index, item in enumerate(objects)
        if item.shape == requirement.shape and requirement.color in (None, item.color)
    ]


def _presence(requirement: Requirement, slot: Sequence[int], objects: Sequence[Detected]) -> _Check:
    """Half a point for each object that is right in shape only or in colour only."""
    if len(slot) >= requirement.count:
        return 1.0, ""
    shape = sum(item.shape == requirement.shape for item in objects)
    color = sum(item.color == requirement.color for item in objects)
    near = 0.5 * min(requirement.count, max(shape, color))
    name = f"{requirement.color} {requirement.shape}" if requirement.color else requirement.shape
    return max(len(slot), near) / requirement.count, f"{name}: expected {requirement.count}, found {len(slot)}"


def _distinctness(spec: Spec, slots: Sequence[Sequence[int]]) -> list[_Check]:
    """One component must not stand for two nouns, as the only red circle would in 'a red circle and a circle'."""
    nouns = [slot for slot in slots if slot]
    if spec.skill == "counting" or any(len(set(choice)) == len(nouns) for choice in product(*nouns)):
        return []
    return [(0.0, "one object stands for two nouns")]


def _relation(spec: Spec, slots: Sequence[Sequence[int]], objects: Sequence[Detected]) -> list[_Check]:
    if spec.relation is None:
        return []
    if not slots[0] or not slots[1]:
        return [(0.0, f"nothing to be {spec.relation}")]
    pairs = [(objects[a], objects[b]) for a, b in product(*slots) if a != b]
    if any(_holds(a, b, spec.relation) for a, b in pairs):
        return [(1.0, "")]
    return [(0.0, f"{spec.include[0].shape} not {spec.relation} {spec.include[1].shape}")]


def _holds(a: Detected, b: Detected, relation: str) -> bool:
    dx, dy = a.x - b.x, a.y - b.y
    along, across = (dx, dy) if relation in ("left of", "right of") else (dy, dx)
    ahead = -along if relation in ("left of", "above") else along
    return ahead > _MARGIN and abs(along) >= abs(across)


def _surplus(spec: Spec, slots: Sequence[Sequence[int]]) -> list[_Check]:
    if spec.skill != "counting" or len(slots[0]) <= spec.wanted:
        return []
    extra = len(slots[0]) - spec.wanted
    return [(0.5 if extra == 1 else 0.0, f"expected {spec.wanted}, found {len(slots[0])}")]
