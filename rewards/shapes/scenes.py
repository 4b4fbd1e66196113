"""Random scenes of the shapes world, the sentences that are true of them, and the split that is held out of training.

About a tenth of the combinations of two or more objects, chosen by md5 of their names, never occur in training. Single
objects are not held out: there are only 48 of them.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from random import Random
from typing import Literal

from rewards.shapes.captions import COLORS, NUMBERS, RELATIONS, SHAPES, SKILLS, Requirement, Spec

SIZE = 64  # pixels, the side of every picture
Split = Literal["train", "test"]
Kind = Literal["single", "two", "count", "three"]

_KIND_WEIGHTS: dict[Kind, float] = {"single": 0.14, "two": 0.52, "count": 0.22, "three": 0.12}
_KIND_OF_SKILL: dict[str, Kind] = {
    "single_object": "single",
    "colors": "single",
    "counting": "count",
    "three_attr": "three",
    "two_object": "two",
    "color_attr": "two",
    "position": "two",
}
_RADII = {1: (9.5, 15.0), 2: (8.5, 12.0), 3: (7.5, 10.0), 4: (7.0, 9.0)}  # pixels, by number of objects


@dataclass(frozen=True)
class Thing:
    """A shape with a colour and a place.

    Attributes:
        shape, color: names from `SHAPES` and `COLORS`.
        x, y: centre in pixels, y downwards.
        radius: pixels.
        angle: radians.
    """

    shape: str
    color: str
    x: float = 0.0
    y: float = 0.0
    radius: float = 0.0
    angle: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Things that do not touch, on one ground."""

    kind: Kind
    things: tuple[Thing, ...]


def relation_between(a: Thing, b: Thing, margin: float = 1.5) -> str | None:
    """Where `a` lies with respect to `b`, or None where neither axis dominates by the factor `margin`."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dx) >= margin * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) >= margin * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def held_out(things: Sequence[Thing]) -> bool:
    """Whether this combination of shapes and colours is kept out of training."""
    if len(things) == 1:
        return False
    names = sorted({(thing.color, thing.shape) for thing in things})
    if len(names) == 1:
        return _in_tenth("count", [list(names[0]), len(things)])
    return _in_tenth("multi", [list(name) for name in names])


def random_scene(rng: Random, kind: Kind | None = None, split: Split = "train") -> Scene:
    """A scene of the given kind (drawn at random when None) from one side of the split."""
    kind = kind or rng.choices(list(_KIND_WEIGHTS), list(_KIND_WEIGHTS.values()))[0]
    return Scene(kind, _placed(rng, _random_things(rng, kind, split), None))


def random_spec(rng: Random, skill: str, split: Split = "test") -> Spec:
    """A sentence of the given skill about a combination from one side of the split."""
    kind = _KIND_OF_SKILL[skill]
    things = _random_things(rng, kind, split)
    while skill == "two_object" and things[0].shape == things[1].shape:
        things = _random_things(rng, kind, split)
    relation = rng.choice(RELATIONS) if skill == "position" else None
    return _spec(things, skill, relation, prefixed=rng.random() < 0.5)


def prompt_set(
    per_skill: int, seed: int = 0, split: Split = "test", skills: Sequence[str] = SKILLS
) -> tuple[Spec, ...]:
    """`per_skill` sentences of each skill, distinct as far as the grammar goes (single_object has 12)."""
    specs: list[Spec] = []
    for skill in skills:
        rng = Random(f"{seed}-{skill}-{split}")
        distinct: dict[Spec, None] = {}
        for _ in range(50 * per_skill):
            distinct[random_spec(rng, skill, split)] = None
            if len(distinct) == per_skill:
                break
        specs += islice(cycle(distinct), per_skill)
    return tuple(specs)


def true_spec(scene: Scene, rng: Random, skill: str | None = None) -> Spec:
    """A sentence that is true of `scene`: of the given skill where it applies, else of one drawn at random."""
    things = list(scene.things)
    rng.shuffle(things)
    relation = relation_between(things[0], things[1]) if scene.kind == "two" else None
    fitting = _fitting_skills(things, scene.kind, relation)
    if skill not in fitting:
        skill = rng.choices(list(fitting), list(fitting.values()))[0]
    return _spec(things, skill, relation if skill == "position" else None, prefixed=rng.random() < 0.5)


def scene_for(spec: Spec, rng: Random) -> Scene:
    """A scene of which `spec` is true; colours that the sentence leaves open are drawn at random."""
    things = [
        Thing(requirement.shape, requirement.color or rng.choice(COLORS))
        for requirement in spec.include
        for _ in range(requirement.count)
    ]
    return Scene(_KIND_OF_SKILL[spec.skill], _placed(rng, things, spec.relation))


def _in_tenth(kind: str, key: list[object]) -> bool:
    return hashlib.md5(f"{kind}|{json.dumps(key)}".encode()).digest()[0] % 10 == 0


def _random_things(rng: Random, kind: Kind, split: Split) -> list[Thing]:
    while True:
        things = _draw_things(rng, kind)
        if kind == "single" or held_out(things) == (split == "test"):
            return things


def _draw_things(rng: Random, kind: Kind) -> list[Thing]:
    if kind == "count":
        thing = Thing(rng.choice(SHAPES), rng.choice(COLORS))
        return [thing] * rng.choice(list(NUMBERS.values()))
    number = {"single": 1, "two": 2, "three": 3}[kind]
    pairs: set[tuple[str, str]] = set()
    while len(pairs) < number:
        pairs.add((rng.choice(SHAPES), rng.choice(COLORS)))
    things = [Thing(*pair) for pair in sorted(pairs)]
    rng.shuffle(things)
    return things


def _fitting_skills(things: Sequence[Thing], kind: Kind, relation: str | None) -> dict[str, float]:
    if kind == "two":
        distinct = things[0].shape != things[1].shape
        return {"position": 0.5 if relation else 0.0, "two_object": 0.15 if distinct else 0.0, "color_attr": 0.35}
    if kind == "single":
        return {"single_object": 1.0, "colors": 2.0}
    return {"counting": 1.0} if kind == "count" else {"three_attr": 1.0}


def _spec(things: Sequence[Thing], skill: str, relation: str | None, *, prefixed: bool) -> Spec:
    if skill == "counting":
        include = [Requirement(things[0].shape, things[0].color, len(things))]
    else:
        colored = skill not in ("single_object", "two_object")
        include = [Requirement(thing.shape, thing.color if colored else None) for thing in things]
    return Spec(skill, tuple(include), relation, prefixed)


def _placed(rng: Random, things: Sequence[Thing], relation: str | None) -> tuple[Thing, ...]:
    """`things` at places where none touches another, the first two in the wanted relation."""
    low, high = _RADII[len(things)]
    while True:
        radii = [rng.uniform(low, high) for _ in things]
        wanted = relation
        if len(things) == 2 and wanted is None and rng.random() < 0.85:
            wanted = rng.choice(RELATIONS)  # most pairs lie along an axis, so that position sentences are true of them
        for _ in range(200):
            placed = [_somewhere(rng, thing, radius) for thing, radius in zip(things, radii, strict=True)]
            if _apart(placed) and (wanted is None or relation_between(placed[0], placed[1], 1.6) == wanted):
                return tuple(placed)


def _somewhere(rng: Random, thing: Thing, radius: float) -> Thing:
    margin = 1.2 * radius + 1.5
    x, y = rng.uniform(margin, SIZE - margin), rng.uniform(margin, SIZE - margin)
    return replace(thing, x=x, y=y, radius=radius, angle=rng.uniform(-0.2, 0.2))


def _apart(things: Sequence[Thing]) -> bool:
    return all(
        math.hypot(a.x - b.x, a.y - b.y) > 1.2 * (a.radius + b.radius) + 2.5
        for index, a in enumerate(things)
        for b in things[:index]
    )
