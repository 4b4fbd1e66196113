"""The sentences of the shapes world, and what each of them asks of a picture.

Grammar (``a photo of`` may precede every sentence; case does not matter)::

    sentence := noun | noun "and" noun ["and" noun] | noun relation noun | number [color] plural
    noun     := ("a" | "an") [color] shape
    relation := "left of" | "right of" | "above" | "below"
    number   := "two" | "three" | "four"

The embedded model was trained on these sentences in six skills named as in GenEval (Ghosh et al., 2023,
arXiv:2310.11513), and a seventh, harder one, `three_attr`. A `Spec` follows GenEval's metadata: what a picture must
include, and how often.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.errors import RewardError

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = {"two": 2, "three": 3, "four": 4}
SKILLS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
HARD_SKILLS = ("position", "two_object", "three_attr")
ALL_SKILLS = (*SKILLS, "three_attr")
PREFIX = "a photo of "

_PLURALS = {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}
_SINGULAR = {plural: shape for shape, plural in _PLURALS.items()}
_NUMBER_WORD = {number: word for word, number in NUMBERS.items()}

_SMALL_WORDS = ("a", "an", "photo", "of", "and", "left", "right", "above", "below")
VOCABULARY = frozenset((*_SMALL_WORDS, *COLORS, *SHAPES, *_PLURALS.values(), *NUMBERS))

_COLOR = f"(?:(?P<color>{'|'.join(COLORS)}) )?"
_NOUN = re.compile(rf"(?:a|an) {_COLOR}(?P<shape>{'|'.join(SHAPES)})")
_COUNT = re.compile(rf"(?P<number>{'|'.join(NUMBERS)}) {_COLOR}(?P<plural>{'|'.join(_SINGULAR)})")
_RELATION = re.compile(rf"(?P<subject>.+) (?P<relation>{'|'.join(RELATIONS)}) (?P<target>.+)")


class UnknownPromptError(RewardError):
    """A prompt outside the grammar of the shapes world."""


@dataclass(frozen=True)
class Requirement:
    """At least `count` objects of this shape and, unless `color` is None, of this colour."""

    shape: str
    color: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Spec:
    """What a prompt asks for; GenEval's metadata as a value.

    Attributes:
        skill: one of `ALL_SKILLS`.
        include: the nouns in the order of the sentence.
        relation: where include[0] lies with respect to include[1], or None.
        prefixed: whether the sentence begins with "a photo of".
    """

    skill: str
    include: tuple[Requirement, ...]
    relation: str | None = None
    prefixed: bool = False

    @property
    def wanted(self) -> int:
        """Number of objects that the sentence names."""
        return sum(requirement.count for requirement in self.include)

    @property
    def prompt(self) -> str:
        """The sentence; `parse` reads it back."""
        return sentence(self)


def sentence(spec: Spec) -> str:
    """The sentence of `spec` in lower case."""
    if spec.skill == "counting":
        text = _plural(spec.include[0])
    else:
        joint = f" {spec.relation} " if spec.relation else " and "
        text = joint.join(_noun(requirement) for requirement in spec.include)
    return (PREFIX if spec.prefixed else "") + text


def parse(prompt: str) -> Spec:
    """What `prompt` asks for.

    Raises:
        UnknownPromptError: the sentence is outside the grammar; the message names the unknown words.
    """
    text = " ".join(prompt.lower().split()).removesuffix(".").rstrip()
    body = text.removeprefix(PREFIX)
    prefixed = body != text
    if match := _COUNT.fullmatch(body):
        number = NUMBERS[match["number"]]
        return Spec("counting", (Requirement(_SINGULAR[match["plural"]], match["color"], number),), None, prefixed)
    relation = None
    if match := _RELATION.fullmatch(body):
        relation, phrases = match["relation"], [match["subject"], match["target"]]
    else:
        phrases = body.split(" and ")
    nouns = [_NOUN.fullmatch(phrase) for phrase in phrases]
    include = tuple(Requirement(noun["shape"], noun["color"]) for noun in nouns if noun)
    if len(include) < len(phrases) or len(include) > 3:
        raise UnknownPromptError(_complaint(prompt))
    return Spec(_skill(include, relation), include, relation, prefixed)


def try_parse(prompt: str) -> Spec | None:
    """`parse`, or None for a prompt outside the grammar."""
    try:
        return parse(prompt)
    except UnknownPromptError:
        return None


def unknown_words(prompt: str) -> tuple[str, ...]:
    """Words of `prompt` that the embedded model never learnt, in order, each once."""
    words = re.findall(r"[^\W_]+(?:['-][^\W_]+)*", prompt.lower())
    return tuple(dict.fromkeys(word for word in words if word not in VOCABULARY))


def _skill(include: Sequence[Requirement], relation: str | None) -> str:
    colored = all(requirement.color for requirement in include)
    if relation:
        return "position"
    if len(include) == 1:
        return "colors" if colored else "single_object"
    if len(include) == 3:
        return "three_attr"
    return "color_attr" if colored else "two_object"


def _noun(requirement: Requirement) -> str:
    words = f"{requirement.color} {requirement.shape}" if requirement.color else requirement.shape
    return ("an " if words[0] in "aeiou" else "a ") + words


def _plural(requirement: Requirement) -> str:
    words = [_NUMBER_WORD[requirement.count], requirement.color, _PLURALS[requirement.shape]]
    return " ".join(word for word in words if word)


def _complaint(prompt: str) -> str:
    unknown = unknown_words(prompt)
    why = f"does not know {', '.join(map(repr, unknown))}" if unknown else "knows the words but not the sentence"
    return (
        f"The shapes world {why} in {prompt!r}; expected sentences such as 'a red circle', 'three blue stars', "
        "'a heart and a cross' or 'a red circle left of a blue square', or choose another reward, such as llava-reward."
    )
