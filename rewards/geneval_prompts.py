"""What a prompt asks to be in the picture, as GenEval's metadata say it: objects, numbers, colours, positions.

GenEval's own file gives this for its 553 prompts; without the file, prompts of its six forms are read:

    a photo of a bench                              a photo of a bench and a sports ball
    a photo of three clocks                         a photo of a red apple
    a photo of a dog right of a teddy bear          a photo of a purple wine glass and a black apple

Reference: Ghosh et al., GenEval, NeurIPS 2023; github.com/djghosh13/geneval, prompts/evaluation_metadata.jsonl.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.errors import RewardError

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
_NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
}  # fmt: skip
_SINGULAR = {
    "buses": "bus", "people": "person", "knives": "knife", "mice": "mouse", "scissors": "scissors", "sheep": "sheep",
    "skis": "skis", "children": "child", "men": "man", "women": "woman", "leaves": "leaf", "wolves": "wolf",
}  # fmt: skip
_PHRASE = r"(an?|" + "|".join(_NUMBERS) + r") ([a-z][a-z -]*?)"
_FORM = re.compile(rf"a photo of {_PHRASE}(?: (and|{'|'.join(RELATIONS)}) {_PHRASE})?\.?", re.IGNORECASE)
_NO_NOUN = {"a", "and", "at", "by", "for", "from", "in", "near", "next", "of", "on", "or", "the", "to", "with"}


@dataclass(frozen=True)
class Wanted:
    """So many objects of a class.

    Attributes:
        name: Of the class, in the singular.
        count: At least so many; of what is excluded, fewer than so many.
        colour: That so many of them have; "" for any.
        relation: One of `RELATIONS`, or "".
        target: Place in `Scene.include` of what the relation is to.
    """

    name: str
    count: int = 1
    colour: str = ""
    relation: str = ""
    target: int = 0


@dataclass(frozen=True)
class Scene:
    """What must be there, and what must not."""

    include: tuple[Wanted, ...]
    exclude: tuple[Wanted, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All classes, each once."""
        return tuple(dict.fromkeys(wanted.name for wanted in (*self.include, *self.exclude)))


def read_prompt(prompt: str) -> Scene:
    """The scene of a prompt in one of GenEval's forms.

    A number asks for exactly so many, "a" for at least one.

    Raises:
        RewardError: Another form.
    """
    match = _FORM.fullmatch(" ".join(prompt.split()))
    if match is None:
        raise _unread(prompt)
    number, noun, joint, other_number, other_noun = match.groups()
    first = _wanted(number, noun.lower(), prompt)
    if joint is None:
        return _scene(first)
    second = _wanted(other_number, other_noun.lower(), prompt)
    if joint.lower() == "and":
        return _scene(first, second)
    return _scene(second, Wanted(first.name, first.count, first.colour, joint.lower(), 0))


def read_metadata(path: str | Path) -> dict[str, Scene]:
    """The scenes of all prompts in a file such as GenEval's evaluation_metadata.jsonl.

    Raises:
        RewardError: It cannot be read.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        return {row["prompt"]: _from_row(row) for row in rows}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise RewardError(
            f"{path} holds no metadata ({type(error).__name__}: {error}); expected lines as in GenEval's "
            "evaluation_metadata.jsonl, each with prompt and include."
        ) from error


def _from_row(row: Mapping[str, Any]) -> Scene:
    include = tuple(_from_clause(clause, len(row["include"])) for clause in row["include"])
    return Scene(include, tuple(_from_clause(clause, 0) for clause in row.get("exclude", ())))


def _from_clause(clause: Mapping[str, Any], others: int) -> Wanted:
    relation, target = clause.get("position") or ("", 0)
    if (relation and relation not in RELATIONS) or (relation and not 0 <= target < others) or clause["count"] < 1:
        raise ValueError(f"the clause {clause} makes no sense")
    return Wanted(clause["class"], clause["count"], clause.get("color") or "", relation, target)


def _scene(*wanted: Wanted) -> Scene:
    """What is wanted, and one more than a number that is above one excluded."""
    return Scene(wanted, tuple(Wanted(one.name, one.count + 1) for one in wanted if one.count > 1))


def _wanted(number: str, noun: str, prompt: str) -> Wanted:
    words = noun.split()
    colour = words.pop(0) if len(words) > 1 and words[0] in COLOURS else ""
    if len(words) > 2 or _NO_NOUN & set(words):
        raise _unread(prompt)
    count = _NUMBERS.get(number.lower(), 1)
    return Wanted(" ".join([*words[:-1], _singular(words[-1]) if count > 1 else words[-1]]), count, colour)


def _singular(noun: str) -> str:
    if noun in _SINGULAR:
        return _SINGULAR[noun]
    if noun.endswith(("sses", "shes", "ches", "xes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") else noun


def _unread(prompt: str) -> RewardError:
    return RewardError(
        f"The prompt {prompt!r} has none of GenEval's forms, such as 'a photo of two red apples' or 'a photo of a dog "
        "right of a bench'; write it so, or give geneval(metadata=FILE) in GenEval's format."
    )
