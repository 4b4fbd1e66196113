"""The language of specifications: what each line means, and where the caret stands."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.errors import SpecError
from rewards.grammar import Bound, Cascade, Named, Rank, Subject, Sum, names, parse

A, B = Named("pickscore"), Named("aesthetic")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("pickscore", A),
        ("pixels:sharpness", Named("pixels:sharpness")),
        ("my_package.module:Class", Named("my_package.module:Class")),
        ("0.7*pickscore + 0.3*aesthetic", Sum(((0.7, A), (0.3, B)))),
        ("pickscore+.3*aesthetic", Sum(((1.0, A), (0.3, B)))),
        ("-pickscore - 2e-1 * aesthetic", Sum(((-1.0, A), (-0.2, B)))),
        ("pickscore -0.5*aesthetic", Sum(((1.0, A), (-0.5, B)))),
        ("(pickscore)", A),
        ("rank(pickscore + 2*aesthetic)", Rank(Sum(((1.0, A), (2.0, B))))),
        ("(2*pickscore) - 3*(aesthetic - (pickscore))", Sum(((2.0, A), (-3.0, B), (3.0, A)))),
        ("0.5*(2*pickscore)", A),
        ("pickscore:16 > aesthetic:4", Cascade(((16, A), (4, B)))),
        ("llava-reward:alignment:4 > pickscore", Cascade(((4, Named("llava-reward:alignment")), (None, A)))),
        ("pickscore subject to aesthetic < 0.1", Subject(A, (Bound(B, "<", 0.1),))),
        ("pickscore subject to aesthetic >= -5 and pickscore > 20",
         Subject(A, (Bound(B, ">=", -5), Bound(A, ">", 20)))),
        ("llava-reward@runs/a-b.2", Named("llava-reward", (("checkpoint", "runs/a-b.2"),))),
        ("llava-reward@C:/mine", Named("llava-reward", (("checkpoint", "C:/mine"),))),
        ("2*llava-reward@/a/b(skipca=official) + pickscore",
         Sum(((2.0, Named("llava-reward", (("checkpoint", "/a/b"), ("skipca", "official")))), (1.0, A)))),
        ("pickscore:8 > llava-reward@./mine:2",
         Cascade(((8, A), (2, Named("llava-reward", (("checkpoint", "./mine"),)))))),
        ("llava-reward(skipca=official, checkpoint=/a/b c.d)",
         Named("llava-reward", (("skipca", "official"), ("checkpoint", "/a/b c.d")))),
    ],
)  # fmt: skip
def test_a_line_means(text: str, meaning: object) -> None:
    assert parse(text) == meaning


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", 0),
        ("0.7*", 4),
        ("0.7 pickscore", 4),
        ("pickscore + ", 12),
        ("pickscore aesthetic", 10),
        ("pickscore ~ aesthetic", 10),
        ("pickscore:0 > aesthetic", 10),
        ("(pickscore", 10),
        ("pickscore(skipca)", 16),
        ("pickscore(skipca=)", 17),
        ("pickscore(skipca=official", 25),
        ("pickscore subject nsfw < 1", 18),
        ("pickscore subject to nsfw", 25),
        ("pickscore subject to nsfw < high", 28),
        ("pickscore > 20", 12),
    ],
)
def test_a_fault_has_a_caret_under_it(text: str, place: int) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    _, line, caret = str(caught.value).split("\n")
    assert line == f"  {text}"
    assert caret.index("^") == place + 2


@given(st.text(alphabet="ab0.1*+->:(),=<~ ", max_size=24))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    with contextlib.suppress(SpecError):
        assert names(parse(text))
