"""Every kind of fault that data can have, one of each."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from PIL import Image

from rewards.training.checks import check_records
from rewards.training.records import Pair, Record, Side, Single

Make: TypeAlias = Callable[..., Path]


@pytest.fixture
def image(tmp_path: Path) -> Make:
    """Writes a small picture of one shade, by default its name's own."""

    def make(name: str, shade: int | None = None) -> Path:
        path = tmp_path / f"{name}.png"
        Image.new("RGB", (4, 4), (shade if shade is not None else ord(name[0]), 0, 0)).save(path)
        return path

    return make


def faults(records: list[Record], **options: object) -> list[str]:
    report = check_records(records, **options)  # type: ignore[arg-type]
    assert {record.where for record in report.good}.isdisjoint(fault.where for fault in report.faults)
    assert len({fault.where for fault in report.faults}) + len(report.good) == len(records)
    return [str(fault) for fault in report.faults]


def test_good_records_have_no_faults(image: Make) -> None:
    a, b = Side(image("a"), "x"), Side(image("b"), "x")
    assert faults([Pair(a, b, where="1"), Single(a, 1, where="2"), Pair(a, Side(a.image, "y"), where="3")]) == []


def test_pictures_that_are_not_there_or_cannot_be_read(image: Make, tmp_path: Path) -> None:
    whole = image("a")
    Image.effect_noise((64, 64), 50).save(tmp_path / "noise.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "noise.png").read_bytes()[:1000])
    (tmp_path / "text.png").write_text("no picture")
    found = faults([Pair(Side(tmp_path / name, "x"), Side(whole, "x"), where=name) for name in
                    ("none.png", "cut.png", "text.png")])  # fmt: skip
    assert [line.partition(": ")[2].split(str(tmp_path))[0] for line in found] == [
        "there is no picture ", "the picture ", "the picture ",
    ]  # fmt: skip
    assert "truncated" in found[1]
    assert "cannot identify" in found[2]


def test_empty_prompts_unless_they_are_allowed(image: Make) -> None:
    records: list[Record] = [Single(Side(image("a"), " "), 1, where="1")]
    assert faults(records) == ["1: the prompt ' ' is empty"]
    assert faults(records, allow_empty=True) == []


def test_what_is_wrong_with_both_sides_is_said_once(image: Make, tmp_path: Path) -> None:
    a, b, none = image("a"), image("b"), tmp_path / "none.png"
    assert faults([Pair(Side(a, " "), Side(b, " "), where="1"), Pair(Side(none, "x"), Side(none, "y"), where="2")]) == [
        "1: the prompt ' ' is empty", f"2: there is no picture {none}",
    ]  # fmt: skip


def test_duplicates_and_contradictions_by_pixels_not_by_names(image: Make) -> None:
    a, b, copy = Side(image("a"), "x"), Side(image("b"), "x"), Side(image("copy", ord("a")), "x")
    found = faults([
        Pair(a, b, where="1"), Pair(copy, b, where="2"),
        Pair(Side(a.image, "y"), Side(b.image, "y"), where="3"),
        Pair(Side(b.image, "y"), Side(copy.image, "y"), where="4"),
        Single(a, 1, where="5"), Single(copy, 1, where="6"),
        Single(b, 1, where="7"), Single(b, 0, where="8"),
        Pair(a, copy, where="9"),
    ])  # fmt: skip
    assert sorted(found) == [
        "2: repeats 1", "3: is contradicted by 4", "4: contradicts 3", "6: repeats 5", "7: is contradicted by 8",
        "8: contradicts 7", "9: both sides are the same picture with the same prompt",
    ]  # fmt: skip


def test_pictures_that_the_test_has_too(image: Make) -> None:
    a, b, copy = Side(image("a"), "x"), Side(image("b"), "x"), Side(image("copy", ord("a")), "other")
    found = faults([Single(copy, 1, where="1"), Single(b, 1, where="2")], test=[Single(a, 1, where="test:9")])
    assert found == [f"1: the picture {copy.image} is in the test data too (test:9)"]
