"""Training material for the embedded LLaVA-Reward: sentences about pictures, and packs of them.

Every sentence comes with its twin: a true one and one that a small change made false (another colour, two colours
exchanged, the opposite relation, one more or one fewer). The exact verifier's rules say which is which. Beside the
verdict a sentence carries what each of its nouns refers to, so that the model is told where it went wrong and not only
that it did.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from reward_model import ID
from reward_pictures import cells_of
from torch import Tensor

from rewards.shapes.captions import COLORS, RELATIONS, SHAPES, Requirement, Spec
from rewards.shapes.detector import BLOB, Detected
from rewards.shapes.scenes import Split, Thing, held_out, random_spec
from rewards.shapes.verifier import judge

TEXT = 104  # words of a pack
WEIGHTS = {  # how often a sentence of each skill is drawn
    "single_object": 0.3, "colors": 0.6, "two_object": 0.8, "color_attr": 1.0, "counting": 1.2, "position": 1.6,
    "three_attr": 1.0,
}  # fmt: skip
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Statement:
    """A sentence about one picture.

    Attributes:
        words: ids, ending with </s>.
        true: the verdict, 1 or 0; -1 where none is asked (lists of objects).
        change: what made it false, or the skill of a true one.
        nouns: for each noun its place among the words and the objects it fits.
        relation: whether the relation between fitting objects holds, 1 or 0; -1 where nothing can be said.
    """

    words: tuple[int, ...]
    true: int
    change: str
    nouns: tuple[tuple[int, tuple[int, ...]], ...] = ()
    relation: int = -1


@dataclass(frozen=True)
class Pack:
    """Pictures and the sentences packed behind each; B pictures, T words, M nouns, S sentences.

    Attributes:
        ids, positions, segments: (B, T); see `reward_model.read`.
        nouns: (M, 2) picture and place of each noun.
        presence, count, relation: (M,) whether something fits it; how much, 0 to 5; whether the relation holds, 1, 0,
            or -1 for unknown.
        heat: (M, 64) cells that what fits covers.
        spot: (M, 2) where the one fitting object lies, in [-1, 1]; nan where none or several fit.
        ends: (S, 2) picture and place of each </s>.
        true: (S,) verdicts, 1 or 0.
        changes: S names of what made a sentence false, or the skill of a true one.
        next_words: (B, T) targets of the language model, -100 where there is none.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    nouns: Tensor
    presence: Tensor
    count: Tensor
    heat: Tensor
    relation: Tensor
    spot: Tensor
    ends: Tensor
    true: Tensor
    changes: tuple[str, ...]
    next_words: Tensor

    def to(self, device: torch.device) -> "Pack":
        """The same on a device."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return Pack(**{name: part.to(device) if isinstance(part, Tensor) else part for name, part in parts.items()})


def twins(
    objects: Sequence[Detected], rng: Random, weights: dict[str, float], split: Split = "train"
) -> tuple[Spec, Spec, str] | None:
    """A true sentence, a false one that differs little, and what differs; None if nothing can be said."""
    banned = kept_out if split == "train" else lambda spec: False
    fitting = {skill: weight for skill, weight in weights.items() if _fits(skill, objects)}
    while fitting:
        skill = rng.choices(list(fitting), list(fitting.values()))[0]
        for _ in range(6):
            true = truth(skill, objects, rng)
            if true and not banned(true) and judge(objects, true).correct:
                for _ in range(6):
                    false, change = falsehood(true, objects, rng)
                    if not banned(false) and not judge(objects, false).correct:
                        return true, false, change
        del fitting[skill]
    return None


def kept_out(spec: Spec) -> bool:
    """Whether the sentence names a combination that training must not see."""
    return all(noun.color for noun in spec.include) and held_out(
        [Thing(noun.shape, noun.color or "") for noun in spec.include for _ in range(noun.count)]
    )


def _fits(skill: str, objects: Sequence[Detected]) -> bool:
    clear = sum(item.shape != BLOB for item in objects)
    return clear >= {"single_object": 1, "colors": 1, "three_attr": 3}.get(skill, 2)


def truth(skill: str, objects: Sequence[Detected], rng: Random) -> Spec | None:
    """A sentence of the skill that is true of the objects, as far as it can be told without the verifier."""
    clear = [item for item in objects if item.shape != BLOB]
    prefixed = rng.random() < 0.3
    if skill == "counting":
        item = rng.choice(clear)
        number = sum((other.shape, other.color) == (item.shape, item.color) for other in clear)
        return Spec(skill, (Requirement(item.shape, item.color, number),), None, prefixed) if 2 <= number <= 4 else None
    number = {"single_object": 1, "colors": 1, "three_attr": 3}.get(skill, 2)
    chosen = rng.sample(clear, number)
    colored = skill not in ("single_object", "two_object")
    relation = rng.choice(RELATIONS) if skill == "position" else None
    include = tuple(Requirement(item.shape, item.color if colored else None) for item in chosen)
    spec = Spec(skill, include, relation, prefixed)
    if relation is None or judge(objects, spec).correct:
        return spec
    return next((other for name in RELATIONS if judge(objects, other := replace(spec, relation=name)).correct), None)


def falsehood(spec: Spec, objects: Sequence[Detected], rng: Random) -> tuple[Spec, str]:
    """`spec` with one thing changed, and the name of the change; it may still be true."""
    changes = ["color", "shape"]
    if spec.skill in ("single_object", "two_object"):
        changes = ["shape"]
    if len(spec.include) > 1:
        changes += ["swap", "swap"] if spec.skill != "two_object" else []
    if spec.skill == "position":
        changes += ["relation"] * 4
    if spec.skill == "counting":
        changes += ["count"] * 3
    change = rng.choice(changes)
    if change == "relation":
        if rng.random() < 0.3:
            return replace(spec, include=spec.include[::-1]), change
        others = [name for name in RELATIONS if name != spec.relation]
        return replace(spec, relation=rng.choice([*others, OPPOSITE[spec.relation or ""]])), change
    if change == "count":
        noun = spec.include[0]
        numbers = [n for n in (2, 3, 4) if abs(n - noun.count) == 1]
        return replace(spec, include=(replace(noun, count=rng.choice(numbers)),)), change
    return replace(spec, include=_altered(spec.include, change, objects, rng)), change


def _altered(
    nouns: Sequence[Requirement], change: str, objects: Sequence[Detected], rng: Random
) -> tuple[Requirement, ...]:
    changed = list(nouns)
    if change == "swap":  # of colours, or of shapes, which comes to the same up to the order
        a, b = rng.sample(range(len(changed)), 2)
        changed[a], changed[b] = replace(nouns[a], color=nouns[b].color), replace(nouns[b], color=nouns[a].color)
        return tuple(changed)
    which = rng.randrange(len(changed))
    here = [getattr(item, change) for item in objects if getattr(item, change) != BLOB]
    value = rng.choice(here) if here and rng.random() < 0.6 else rng.choice(COLORS if change == "color" else SHAPES)
    changed[which] = replace(changed[which], **{change: value})
    return tuple(changed)


def statement(spec: Spec, objects: Sequence[Detected], change: str) -> Statement:
    """`spec` in words, with its verdict and what its nouns refer to."""
    words = spec.prompt.split()
    places = [place for place, word in enumerate(words) if word in _NOUNS]
    fits = [
        tuple(
            row
            for row, item in enumerate(objects)
            if item.shape == noun.shape and noun.color in (None, item.color)
        )
        for noun in spec.include
    ]  # fmt: skip
    verdict = int(judge(objects, spec).correct)
    known = spec.relation and all(fits) and fits[0] != fits[1]
    ids = (*(ID[word] for word in words), ID["</s>"])
    return Statement(ids, verdict, change, tuple(zip(places, fits, strict=True)), verdict if known else -1)


_NOUNS = {*SHAPES, *(shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES)}


def listing(objects: Sequence[Detected]) -> Statement:
    """The picture as a list in reading order of cells: cell, colour, shape, …; what stage b learns to speak first."""
    cell = lambda item: int((item.y + 0.5) // 8) * 8 + int((item.x + 0.5) // 8)  # noqa: E731
    words = [word for item in sorted(objects, key=cell) for word in (f"cell{cell(item)}", item.color, item.shape)]
    return Statement(tuple(ID[word] for word in (*words, "</s>")), -1, "list")


def sentences(
    objects: Sequence[Detected],
    rng: Random,
    weights: dict[str, float],
    first: Sequence[Statement] = (),
) -> list[Statement]:
    """As many statements about one picture as a pack holds: `first`, then twins side by side, in random order."""
    chosen = list(first)
    room = TEXT - sum(len(item.words) for item in chosen)
    while room > 0:
        made = twins(objects, rng, weights)
        if made is None:
            spec = random_spec(rng, rng.choice(list(weights)), "train")
            pair = [statement(spec, objects, "random")]
        else:
            pair = [statement(made[0], objects, made[0].skill), statement(made[1], objects, made[2])]
            rng.shuffle(pair)
        room -= sum(len(item.words) for item in pair)
        if room >= 0:
            chosen += pair
    return chosen


_NOWHERE = np.full(2, np.nan, np.float32)


def pack(tables: NDArray[np.float32], statements: Sequence[Sequence[Statement]]) -> Pack:
    """Tensors for pictures with object tables (B, 8, 5) and their statements."""
    size = (len(tables), TEXT)
    ids = torch.full(size, ID["</s>"])
    positions, segments = torch.zeros(size, dtype=torch.long), torch.full(size, -1)
    next_words = torch.full(size, -100)
    cells = cells_of(torch.from_numpy(tables))  # (B, 8, 64)
    nouns, presence, count, heat, relation, spot, ends, true, changes = [], [], [], [], [], [], [], [], []
    for row, told in enumerate(statements):
        start = 0
        for number, item in enumerate(told):
            stop = start + len(item.words)
            ids[row, start:stop] = torch.tensor(item.words)
            positions[row, start:stop] = torch.arange(stop - start)
            segments[row, start:stop] = number
            if item.true != 0:  # only what is true is worth predicting
                next_words[row, start : stop - 1] = ids[row, start + 1 : stop]
            for index, (place, fits) in enumerate(item.nouns):
                nouns.append((row, start + place))
                presence.append(float(bool(fits)))
                count.append(min(len(fits), 5))
                heat.append(cells[row, list(fits)].any(0).float())
                relation.append(item.relation if index == 1 else -1)
                spot.append(tables[row, fits[0], 2:4] / 32 - 1 if len(fits) == 1 else _NOWHERE)
            if item.true >= 0:
                ends.append((row, stop - 1))
                true.append(float(item.true))
                changes.append(item.change)
            start = stop
    return Pack(
        ids, positions, segments, torch.tensor(nouns), torch.tensor(presence), torch.tensor(count), torch.stack(heat),
        torch.tensor(relation), torch.from_numpy(np.stack(spot)), torch.tensor(ends), torch.tensor(true),
        tuple(changes), next_words,
    )  # fmt: skip
