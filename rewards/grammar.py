"""The language of reward specifications: what to score by, in one line.

    0.7*pickscore + 0.3*aesthetic                  a sum, each reward in units of its usual deviation
    rank(clipscore + judge)                        a sum of ranks, for rewards whose deviation nobody knows
    pickscore:16 > llava-reward:4                  a cascade: the first judges 16 candidates, the second the best 4
    hpsv2 subject to nsfw < 0.1 and ocr >= 0.9     hard constraints
    llava-reward:alignment(skipca=official)        a variant, and options
    llava-reward@rewards/mine                      a checkpoint, short for llava-reward(checkpoint=rewards/mine)

    spec    = cascade [ "subject to" bound { "and" bound } ]
    cascade = stage { ">" stage }
    stage   = sum [ ":" whole number ]
    sum     = [ "-" ] term { ( "+" | "-" ) term }
    term    = [ number "*" ] ( name | "rank" "(" sum ")" | "(" sum ")" )
    name    = word { ":" word } [ "@" path ] [ "(" word "=" value { "," word "=" value } ")" ]
    bound   = name ( "<" | "<=" | ">" | ">=" ) number

A minus between two names needs spaces around it, since names have hyphens of their own.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from rewards.errors import SpecError

NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"
WORD = r"[A-Za-z_](?:[\w.\-/]*\w)?"
PLACE = r"@(?:[^\s()<>,*:]|:(?!\d+(?:\s|>|$)))+"  # up to the number of candidates of a stage
TOKEN = re.compile(
    rf"\s*(?:(?P<number>[-+]?(?:{NUMBER})(?![\w]))|(?P<word>{WORD})|(?P<place>{PLACE})|"
    r"(?P<sign><=|>=|[-+*:()<>,=])|(?P<other>\S))"
)
BOUNDS = ("<", "<=", ">", ">=")


@dataclass(frozen=True)
class Named:
    """One reward: its name with variants as the registry takes it, options as text, and where in the line it stands."""

    name: str
    options: tuple[tuple[str, str], ...] = ()
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Sum:
    """A weighted sum; none of its terms is a sum itself, for `parse` multiplies brackets out."""

    terms: tuple[tuple[float, "Node"], ...]


@dataclass(frozen=True)
class Rank:
    """A sum that is taken of ranks instead of scores."""

    of: "Node"


@dataclass(frozen=True)
class Cascade:
    """Stages, the cheapest first: how many candidates each judges (None: all that come) and by what."""

    stages: tuple[tuple[int | None, "Node"], ...]


@dataclass(frozen=True)
class Bound:
    """What a candidate must satisfy: `reward sign limit`."""

    reward: Named
    sign: str
    limit: float


@dataclass(frozen=True)
class Subject:
    """A score under hard constraints."""

    score: "Node"
    bounds: tuple[Bound, ...]


Node: TypeAlias = Named | Sum | Rank | Cascade | Subject


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


@dataclass
class _Reader:
    """Tokens of a text, read from the left; what does not fit is answered with a caret under it."""

    text: str
    place: int = 0
    tokens: list[_Token] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = list(self._split())

    def _split(self) -> Iterator[_Token]:
        for match in TOKEN.finditer(self.text):
            kind = str(match.lastgroup)
            yield _Token(kind, match[kind], match.start(kind))
        yield _Token("end", "", len(self.text))

    @property
    def next(self) -> _Token:
        return self.tokens[self.place]

    def take(self) -> _Token:
        token = self.next
        self.place += 1
        return token

    def taken(self, *texts: str) -> str:
        """The next token if it is one of these, else nothing."""
        return self.take().text if self.next.kind != "end" and self.next.text in texts else ""

    def expect(self, text: str) -> None:
        if not self.taken(text):
            raise self.fault(f"expected {text!r}")

    def kind(self, kind: str, what: str) -> str:
        if self.next.kind != kind:
            raise self.fault(f"expected {what}")
        return self.take().text

    def fault(self, what: str) -> SpecError:
        return fault(self.text, self.next.at, what)


def fault(text: str, at: int, what: str) -> SpecError:
    """What is wrong with a specification, with a caret under the place."""
    return SpecError(f"The reward {text!r} cannot be read: {what}\n  {text}\n  {' ' * at}^")


def parse(text: str) -> Node:
    """The meaning of a specification.

    Raises:
        SpecError: It does not follow the grammar; the message has a caret under the fault.
    """
    reader = _Reader(text)
    node = _cascade(reader)
    if reader.taken("subject"):
        reader.expect("to")
        bounds = [_bound(reader)]
        while reader.taken("and", ","):
            bounds.append(_bound(reader))
        node = Subject(node, tuple(bounds))
    if reader.next.kind != "end":
        raise reader.fault("expected +, -, >, a number of candidates behind a colon, subject to, or the end")
    return node


def names(node: Node) -> list[Named]:
    """All rewards of a specification, in their order."""
    if isinstance(node, Named):
        return [node]
    if isinstance(node, Rank):
        return names(node.of)
    if isinstance(node, Subject):
        return [*names(node.score), *(bound.reward for bound in node.bounds)]
    parts = node.terms if isinstance(node, Sum) else node.stages
    return [name for _, part in parts for name in names(part)]


def _cascade(reader: _Reader) -> Node:
    stages = [_stage(reader)]
    while reader.taken(">"):
        if reader.next.kind == "number" and reader.tokens[reader.place + 1].text != "*":
            raise reader.fault("a cascade goes on with a reward; a bound is written: REWARD subject to NAME > NUMBER")
        stages.append(_stage(reader))
    if len(stages) == 1 and stages[0][0] is None:
        return stages[0][1]
    return Cascade(tuple(stages))


def _stage(reader: _Reader) -> tuple[int | None, Node]:
    node = _sum(reader)
    if not reader.taken(":"):
        return None, node
    count = reader.next.text
    if not count.isdigit() or int(count) < 1:
        raise reader.fault("expected how many candidates this stage judges, a whole number of at least 1")
    reader.take()
    return int(count), node


def _sum(reader: _Reader) -> Node:
    terms = [_term(reader, -1.0 if reader.taken("-") else 1.0)]
    while True:
        if reader.next.kind == "number" and reader.next.text[0] in "+-":  # "a +0.3*b": the sign belongs to the number
            terms.append(_term(reader, 1.0))
        elif sign := reader.taken("+", "-"):
            terms.append(_term(reader, -1.0 if sign == "-" else 1.0))
        else:
            break
    flat = tuple(each for weight, part in terms for each in _multiplied(weight, part))
    return flat[0][1] if len(flat) == 1 and flat[0][0] == 1 else Sum(flat)


def _multiplied(weight: float, part: Node) -> Iterator[tuple[float, Node]]:
    """A term, or those of the sum in its brackets: what is in there has no other unit than what is beside it."""
    if isinstance(part, Sum):
        yield from ((weight * inner, each) for inner, each in part.terms)
    else:
        yield weight, part


def _term(reader: _Reader, sign: float) -> tuple[float, Node]:
    if reader.next.kind != "number":
        return sign, _factor(reader)
    weight = sign * float(reader.take().text)
    reader.expect("*")
    return weight, _factor(reader)


def _factor(reader: _Reader) -> Node:
    if reader.taken("("):
        node = _sum(reader)
        reader.expect(")")
        return node
    if reader.next.text == "rank" and reader.tokens[reader.place + 1].text == "(":
        reader.take()
        reader.take()
        node = _sum(reader)
        reader.expect(")")
        return Rank(node)
    return _named(reader)


def _named(reader: _Reader) -> Named:
    at = reader.next.at
    name = reader.kind("word", "the name of a reward")
    while reader.next.text == ":" and reader.tokens[reader.place + 1].kind == "word":
        reader.take()
        name += ":" + reader.take().text
    checkpoint = (("checkpoint", reader.take().text[1:]),) if reader.next.kind == "place" else ()
    return Named(name, (*checkpoint, *(_options(reader) if reader.taken("(") else ())), at)


def _options(reader: _Reader) -> Iterator[tuple[str, str]]:
    while True:
        option = reader.kind("word", "the name of an option")
        reader.expect("=")
        yield option, _value(reader)
        if reader.taken(")"):
            return
        reader.expect(",")


def _value(reader: _Reader) -> str:
    """All up to the next comma or bracket, as it stands: a number, a word, a path."""
    start = reader.next.at
    while reader.next.text not in (",", ")"):
        if reader.next.kind == "end":
            raise reader.fault("expected ')'")
        reader.take()
    value = reader.text[start : reader.next.at].strip()
    if not value:
        raise reader.fault("expected a value")
    return value


def _bound(reader: _Reader) -> Bound:
    reward = _named(reader)
    sign = reader.taken(*BOUNDS)
    if not sign:
        raise reader.fault(f"expected one of {', '.join(BOUNDS)}")
    return Bound(reward, sign, float(reader.kind("number", "a number")))
