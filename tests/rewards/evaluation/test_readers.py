"""Tiny copies of public layouts are read as what they say."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rewards.errors import RewardError
from rewards.evaluation.readers import FORMATS, read
from rewards.evaluation.records import Data, with_pairs


def picture(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (level,) * 3).save(path)
    return path


def written(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text)
    return path


def lines(path: Path, *rows: dict[str, object]) -> Path:
    return written(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def pairs(data: Data) -> list[tuple[str, str, str, str]]:
    return [
        (each.pair.chosen.image.name, each.pair.rejected.image.name, each.pair.chosen.prompt, each.category)
        for each in data.preferences
    ]


def there(data: Data) -> bool:
    return all(side.image.is_file() for side in data.sides)


def test_mj_bench(tmp_path: Path) -> None:
    for name in ("good.png", "bad.png"):
        picture(tmp_path / "pictures" / name)
    row = {"caption": "a cat", "image0": "pictures/good.png", "image1": "pictures/bad.png"}
    source = lines(
        tmp_path / "alignment.jsonl",
        {**row, "label": 0, "category": "Quality", "subcategory": "lighting"},
        {**row, "label": 1, "category": "Quality"},
        {**row, "label": "tie"},
        {**row, "label": 2},
    )
    data, faults, name = read(source)
    assert name == "mj-bench"
    assert pairs(data) == [("good.png", "bad.png", "a cat", "lighting"), ("bad.png", "good.png", "a cat", "Quality")]
    assert there(data)
    assert [fault.where for fault in faults] == [f"{source}:4"]


def test_pick_a_pic(tmp_path: Path) -> None:
    row = {"caption": "a cat", "jpg_0": "0.jpg", "jpg_1": "1.jpg"}
    source = lines(
        tmp_path / "validation.jsonl",
        {**row, "label_0": 1.0, "label_1": 0.0, "has_label": True},
        {**row, "label_0": 0.0, "label_1": 1.0, "has_label": True},
        {**row, "label_0": 0.5, "label_1": 0.5, "has_label": True},
        {**row, "label_0": 1.0, "label_1": 0.0, "has_label": False},
    )
    data, faults, name = read(source, images=tmp_path / "elsewhere")
    assert (name, faults) == ("pick-a-pic", [])
    assert [each[:2] for each in pairs(data)] == [("0.jpg", "1.jpg"), ("1.jpg", "0.jpg")]
    assert data.sides[0].image == tmp_path / "elsewhere" / "0.jpg"  # nothing is there, so a message will name it


def test_genai_arena(tmp_path: Path) -> None:
    row = {"prompt": "a cat", "left_image": "l.png", "right_image": "r.png"}
    votes = ("leftvote", "rightvote", "tievote", "bothbad_vote")
    data, faults, name = read(lines(tmp_path / "test.jsonl", *({**row, "vote_type": vote} for vote in votes)))
    assert (name, faults) == ("genai-arena", [])
    assert [each[:2] for each in pairs(data)] == [("l.png", "r.png"), ("r.png", "l.png")]


def test_imagereward_in_a_folder(tmp_path: Path) -> None:
    names = [f"part/images/{k}.webp" for k in range(3)]
    picture(tmp_path / "test_images" / names[0])
    entry = {"id": "005658-0040", "prompt": "a cat", "generations": names, "ranking": [1, 2, 2]}
    written(tmp_path / "test.json", [entry, {**entry, "ranking": [1, 2]}])
    data, faults, name = read(tmp_path)
    assert (name, len(faults)) == ("imagereward", 1)
    assert [each.rating for each in data.opinions] == [-1, -2, -2]
    assert not data.comparable
    assert pairs(with_pairs(data)) == [("0.webp", "1.webp", "a cat", ""), ("0.webp", "2.webp", "a cat", "")]
    assert data.sides[0].image.is_file()


def test_hpdv2(tmp_path: Path) -> None:
    picture(tmp_path / "test" / "b.jpg")
    entry = {"prompt": "a cat", "image_path": ["a.jpg", "b.jpg"], "rank": [1, 0], "raw_annotations": []}
    data, faults, name = read(written(tmp_path / "test.json", [entry]))
    assert (name, faults) == ("hpdv2", [])
    assert pairs(with_pairs(data)) == [("b.jpg", "a.jpg", "a cat", "")]
    assert data.sides[1].image == tmp_path / "test" / "b.jpg"


def test_tifa160(tmp_path: Path) -> None:
    picture(tmp_path / "annotated_images" / "coco_1_x.jpg")
    entry = {"text_id": "coco_1", "image_path": "coco_1_x.jpg", "text": "a cat", "human_scores": [3, 4]}
    both = {"coco_1_x": {**entry, "human_avg": 3.5}, "coco_1_y": {**entry, "human_avg": None}}
    data, faults, name = read(written(tmp_path / "human_annotations.json", both))
    assert (name, len(faults)) == ("tifa160", 1)
    (opinion,) = data.opinions
    assert (opinion.rating, opinion.category, opinion.group) == (3.5, "coco", "coco_1")
    assert there(data)


def test_genai_bench(tmp_path: Path) -> None:
    picture(tmp_path / "SDXL_Base" / "00007.jpeg")
    entry = {"prompt": "a cat", "models": {"SDXL_Base": [5, 4, 3], "DALLE_3": [1, 1, 2]}}
    written(tmp_path / "genai_image.json", {"00007": entry})
    written(tmp_path / "genai_skills.json", {"attribute": [7], "advanced": [7]})
    data, faults, name = read(tmp_path)
    assert (name, faults) == ("genai-bench", [])
    assert [(each.rating, each.category) for each in data.opinions] == [
        (4, "advanced"),
        (pytest.approx(4 / 3), "advanced"),
    ]
    assert data.sides[0].image.is_file()


def test_unsafebench(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    source = lines(
        tmp_path / "test.jsonl",
        {"image": "a.jpg", "safety_label": "Safe", "category": "Hate", "source": "Laion5B", "text": None},
        {"image": "a.jpg", "safety_label": "Unsafe", "category": "Self-harm", "source": "Lexica", "text": "words"},
        {"image": "a.jpg", "safety_label": "?"},
    )
    data, faults, name = read(source)
    assert (name, len(faults)) == ("unsafebench", 1)
    assert [(each.positive, each.category, each.side.prompt) for each in data.opinions] == [
        (True, "Hate", ""),
        (False, "Self-harm", "words"),
    ]


def test_smid(tmp_path: Path) -> None:
    picture(tmp_path / "img" / "b10_p1.jpg")
    table = ",moral_mean,img_name\n1,1.2,b10_p1\n2,3,b2\n3,4.5,b3\n4,,b4\n"
    data, faults, name = read(written(tmp_path / "SMID_norms.csv", table))
    assert (name, len(faults)) == ("smid", 1)
    assert [(each.positive, each.rating) for each in data.opinions] == [(False, 1.2), (None, 3), (True, 4.5)]
    assert data.sides[0].image == tmp_path / "img" / "b10_p1.jpg"
    assert with_pairs(data).preferences == ()  # pictures of different things are no candidates of one prompt


def test_own_files_with_categories_and_ratings(tmp_path: Path) -> None:
    source = lines(
        tmp_path / "mine.jsonl",
        {"chosen_path": "a.png", "reject_path": "b.png", "prompt": ["a cat", "a dog"], "category": "cats"},
        {"path": "a.png", "prompt": "a cat", "rating": 4},
        {"path": "b.png", "prompt": "a cat", "label": 0, "group": "g"},
        {"path": "c.png", "prompt": "a cat", "rating": "good"},
        {"picture": "c.png"},
    )
    data, faults, name = read(source)
    assert (name, [fault.where for fault in faults]) == ("own", [f"{source}:4", f"{source}:5"])
    (preference,) = data.preferences
    assert (preference.category, preference.group) == ("cats", "a cat")
    assert [side.prompt for side in preference.pair.sides] == ["a cat", "a dog"]
    rated, labelled = data.opinions
    assert (rated.rating, rated.positive, rated.group) == (4, None, "a cat")
    assert (labelled.rating, labelled.positive, labelled.group) == (None, False, "g")


def test_parquet_with_the_pictures_inside(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    content = [picture(tmp_path / f"{level}.png", level).read_bytes() for level in (0, 255)]
    row = {"caption": "a cat", "image0": {"bytes": content[0], "path": None}, "label": 1}
    table = pyarrow.Table.from_pylist([{**row, "image1": {"bytes": content[1], "path": "1.png"}}] * 70)
    (tmp_path / "hub" / "data").mkdir(parents=True)
    parquet.write_table(table, tmp_path / "hub" / "data" / "safety-00000-of-00001.parquet")
    data, faults, name = read(tmp_path / "hub")
    assert (name, faults, len(data.preferences), len(data.sides)) == ("mj-bench", [], 70, 2)
    assert data.preferences[0].category == "safety"
    (tmp_path / "hub/data/safety-00000-of-00001.parquet").rename(tmp_path / "hub/data/bias.parquet")
    parquet.write_table(table.append_column("info", [["nsfw"] * 70]), tmp_path / "hub/data/safety.parquet")
    both, _, _ = read(tmp_path / "hub")
    assert [each.category for each in both.preferences] == ["bias"] * 70 + ["nsfw"] * 70
    assert np.asarray(Image.open(data.preferences[0].pair.chosen.image)).min() == 255


def test_splits_are_read_one_at_a_time(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    row = {"image": {"bytes": picture(tmp_path / "a.png").read_bytes(), "path": None}, "category": "Hate"}
    (tmp_path / "data").mkdir()
    for name, label in (
        ("train-00000-of-00001", "Safe"),
        ("test-00000-of-00002", "Safe"),
        ("test-00001-of-00002-e85", "Unsafe"),
    ):
        table = pyarrow.Table.from_pylist([{**row, "safety_label": label, "source": "Lexica"}])
        parquet.write_table(table, tmp_path / "data" / f"{name}.parquet")
    with pytest.raises(RewardError, match=r"holds the splits test, train; give one of them, for example .*data/test\."):
        read(tmp_path)
    data, faults, name = read(tmp_path / "data" / "test")
    assert (name, faults) == ("unsafebench", [])
    assert [each.positive for each in data.opinions] == [True, False]
    with pytest.raises(RewardError, match="There is no"):
        read(tmp_path / "data" / "validation")


@pytest.mark.parametrize(("name", "content", "complaint"), [
    ("test.json", "{", "is not JSON"),
    ("test.json", "7", "holds a int"),
    ("test.txt", "words", "expected a .json"),
])  # fmt: skip
def test_what_is_no_data_is_refused(name: str, content: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=complaint):
        read(written(tmp_path / name, content))


def test_unknown_formats_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="one of mj-bench"):
        read(tmp_path, "mjbench")
    with pytest.raises(RewardError, match="There is no"):
        read(tmp_path / "nothing.json")
    assert list(FORMATS)[-1] == "own"  # takes what no other does
