"""Records of every format, and the line of everything that is none."""

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from rewards.errors import RewardError
from rewards.training.records import Pair, Side, Single, as_row, read_records, write_records

PAIR = {"prompt_id": 7, "prompt": "a cat", "chosen_path": "a.png", "c_rate": 5, "reject_path": "b.png", "r_rate": 1}


def told(path: Path) -> tuple[list[object], list[str]]:
    records, faults = read_records(path)
    return list(records), [str(fault).replace(str(path), "") for fault in faults]


def test_the_official_list_of_pairs_and_pictures_with_the_line_of_each(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    two = {**PAIR, "prompt": ["a cat", "a dog"]}
    path.write_text(json.dumps([PAIR, two, {"path": "c.png", "label": 1, "prompt": ""}], indent=1))
    a, b, c = (tmp_path / f"{name}.png" for name in "abc")
    assert told(path) == (
        [
            Pair(Side(a, "a cat"), Side(b, "a cat"), where=f"{path}:2"),
            Pair(Side(a, "a cat"), Side(b, "a dog"), where=f"{path}:10"),
            Single(Side(c, ""), 1.0, where=f"{path}:21"),
        ],
        [],
    )


def test_faults_of_a_list_name_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    rows = [
        PAIR, {"path": "c.png", "label": 2, "prompt": "x"}, {"prompt": "x"}, {**PAIR, "prompt": ["one"]},
        {**PAIR, "prompt": None}, {**PAIR, "reject_path": " "}, {"path": "c.png", "label": True, "prompt": "x"}, 5,
    ]  # fmt: skip
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + ',\n{"path": \n')
    records, faults = told(path)
    assert len(records) == 1
    assert faults == [
        ":3: label is 2; expected 0 (bad) to 1 (good)",
        ":4: holds prompt; expected chosen_path, reject_path and prompt, or path, label and prompt",
        ":5: prompt lists 1 texts; expected one text, or those of both sides",
        ":6: prompt is missing; expected a text",
        ":7: reject_path is ' '; expected the path of a picture",
        ":8: label is True; expected a number",
        ":9: is no object but '5'; expected a list of records",
        ":10: is not JSON (Expecting value), so that nothing behind it can be read",
    ]


def test_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({**PAIR, "margin": 0.5}) + "\n\n{broken\n[1]\n")
    records, faults = told(path)
    assert records == [Pair(Side(tmp_path / "a.png", "a cat"), Side(tmp_path / "b.png", "a cat"), 0.5, f"{path}:1")]
    assert [fault.partition(" ")[0] for fault in faults] == [":3:", ":4:"]


def test_a_table_of_pairs_and_pictures_with_prompts_of_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(
        "chosen_path,reject_path,prompt,prompt_chosen,prompt_rejected,path,label\n"
        'a.png,b.png,"two\nlines",,,,\n'
        "a.png,b.png,,a cat,a dog,,\n"
        ",,alone,,,c.png,0.25\n"
        "a.png,b.png\n"
    )
    records, faults = told(path)
    assert [getattr(record, "where", "").rpartition(":")[2] for record in records] == ["2", "4", "5"]
    assert records[0] == Pair(Side(tmp_path / "a.png", "two\nlines"), Side(tmp_path / "b.png", "two\nlines"), None,
                              f"{path}:2")  # fmt: skip
    assert [side.prompt for side in records[1].sides] == ["a cat", "a dog"]  # type: ignore[attr-defined]
    assert records[2] == Single(Side(tmp_path / "c.png", "alone"), 0.25, f"{path}:5")
    assert faults == [":6: has 2 cells; expected 7, as the first line names them"]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    side, other = Side(tmp_path / "a.png", "é"), Side(tmp_path / "b.png", "ü")
    records = [Pair(side, other, 0.5), Pair(side, Side(other.image, "é")), Single(side, 0.5)]
    write_records(path, records)
    again, faults = read_records(path)
    assert [as_row(record) for record in again] == [as_row(record) for record in records]
    assert faults == []


def test_relative_paths_are_written_whole(tmp_path: Path) -> None:
    write_records(tmp_path / "out.jsonl", [Single(Side(Path("a.png"), "x"), 1.0)])
    (again,), _ = read_records(tmp_path / "out.jsonl")
    assert again.sides[0].image == Path.cwd() / "a.png"


def test_other_files_are_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "data.parquet").touch()
    with pytest.raises(RewardError, match=r"expected a \.json, \.jsonl or \.csv file"):
        read_records(tmp_path / "data.parquet")
    with pytest.raises(RewardError, match=r"There is no .*none\.csv; expected a \.json"):
        read_records(tmp_path / "none.csv")


@pytest.mark.skipif(importlib.util.find_spec("datasets") is not None, reason="datasets is installed")
def test_a_folder_needs_datasets(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="pip install datasets"):
        read_records(tmp_path)


def test_a_folder_of_datasets_with_pictures_in_the_table(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    picture = {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}
    features = {"path": datasets.Image(), "label": datasets.Value("int64"), "prompt": datasets.Value("string")}
    columns = {"path": [picture, picture], "label": [1, 2], "prompt": ["x", "y"]}
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).save_to_disk(str(tmp_path / "data"))
    records, faults = told(tmp_path / "data")
    assert faults == [", row 2: label is 2; expected 0 (bad) to 1 (good)"]
    (side,) = records[0].sides  # type: ignore[attr-defined]
    assert side.image.parent == tmp_path / "data-pictures"
    assert side.image.read_bytes() == picture["bytes"]
