"""Object checks: prompts, geometry and scores by hand; drawn pictures and a detector of colours; a tiny OWLv2."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from rewards import load_reward
from rewards.errors import RewardError
from rewards.geneval import Found, SceneScore, fulfilment, relations
from rewards.geneval_owl import Owl, load_owl, overlap
from rewards.geneval_prompts import COLOURS, Scene, Wanted, read_metadata, read_prompt
from rewards.single import SingleReward
from rewards.testing import check_reward
from tests.rewards.standard.tiny import write_clip_tokenizer

TWO_CLOCKS = Scene((Wanted("clock", 2),), (Wanted("clock", 3),))


@pytest.mark.parametrize(
    ("prompt", "scene"),
    [
        ("a photo of a bench", Scene((Wanted("bench"),))),
        ("A photo of an orange.", Scene((Wanted("orange"),))),
        ("a photo of a bench and a sports ball", Scene((Wanted("bench"), Wanted("sports ball")))),
        ("a photo of two clocks", TWO_CLOCKS),
        ("a photo of four wine glasses", Scene((Wanted("wine glass", 4),), (Wanted("wine glass", 5),))),
        ("a photo of three buses", Scene((Wanted("bus", 3),), (Wanted("bus", 4),))),
        ("a photo of three horses", Scene((Wanted("horse", 3),), (Wanted("horse", 4),))),
        ("a photo of a red bus", Scene((Wanted("bus", colour="red"),))),
        ("a photo of an orange orange", Scene((Wanted("orange", colour="orange"),))),
        (
            "a photo of a purple wine glass and a black apple",
            Scene((Wanted("wine glass", colour="purple"), Wanted("apple", colour="black"))),
        ),
        (
            "a photo of a dog right of a teddy bear",
            Scene((Wanted("teddy bear"), Wanted("dog", relation="right of", target=0))),
        ),
    ],
)
def test_prompts_of_the_six_forms_are_read(prompt: str, scene: Scene) -> None:
    assert read_prompt(prompt) == scene


@pytest.mark.parametrize(
    "prompt", ["a bench", "a photo of benches", "a photo of a cat on a mat", "a photo of a cat near the dog", ""]
)
def test_other_prompts_are_refused(prompt: str) -> None:
    with pytest.raises(RewardError, match="none of GenEval's forms"):
        read_prompt(prompt)


def test_metadata_in_the_format_of_geneval_are_read(tmp_path: Path) -> None:
    rows = [
        {
            "tag": "position", "prompt": "a dog by a bench",
            "include": [
                {"class": "bench", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]},
            ],
        },
        {
            "tag": "counting", "prompt": "a photo of two clocks",
            "include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", "count": 3}],
        },
    ]  # fmt: skip
    file = tmp_path / "metadata.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    scenes = read_metadata(file)
    assert scenes["a dog by a bench"] == Scene((Wanted("bench"), Wanted("dog", relation="right of", target=0)))
    assert scenes["a photo of two clocks"] == read_prompt("a photo of two clocks") == TWO_CLOCKS


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"prompt": "x"}',
        '{"prompt": "x", "include": [{"class": "dog", "count": 0}]}',
        '{"prompt": "x", "include": [{"class": "dog", "count": 1, "position": ["behind", 0]}]}',
        '{"prompt": "x", "include": [{"class": "dog", "count": 1, "position": ["above", 1]}]}',
    ],
)
def test_damaged_metadata_are_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(RewardError, match="holds no metadata"):
        read_metadata(tmp_path / "metadata.jsonl")


def at(x: float, y: float, size: float = 10, colour: str = "") -> Found:
    return Found((x - size / 2, y - size / 2, x + size / 2, y + size / 2), 0.9, colour)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (at(20, 50), at(80, 50), {"left of"}),
        (at(80, 50), at(20, 50), {"right of"}),
        (at(50, 20), at(50, 80), {"above"}),
        (at(50, 80), at(50, 20), {"below"}),
        (at(20, 20), at(80, 80), {"left of", "above"}),  # (60 − 2) / 84.9 = 0.68 along both
        (at(50, 50), at(52, 50), set()),  # 2 is within a tenth of the sizes, 0.1 · 20
        (at(50, 50), at(54.1, 50), {"left of"}),  # (4.1 − 2) / 4.1 = 0.51
        (at(50, 50), at(53.9, 50), set()),  # (3.9 − 2) / 3.9 = 0.49
        (at(50, 50), at(50, 50), set()),
    ],
)
def test_positions_by_hand(one: Found, other: Found, expected: set[str]) -> None:
    assert relations(one, other) == expected


@pytest.mark.parametrize(
    ("prompt", "objects", "score"),
    [
        ("a photo of a bench", {}, 0),
        ("a photo of a bench", {"bench": [at(9, 9), at(50, 9)]}, 1),
        ("a photo of a bench and a dog", {"bench": [at(9, 9)]}, 1 / 2),
        ("a photo of two clocks", {"clock": [at(9, 9), at(50, 9)]}, 1),
        ("a photo of two clocks", {"clock": [at(9, 9)]}, (1 / 2 + 1) / 2),
        ("a photo of two clocks", {"clock": [at(9, 9)] * 4}, (1 + 2 / 4) / 2),
        ("a photo of a red bus", {"bus": [at(9, 9, colour="blue")]}, 1 / 2),
        ("a photo of a red bus", {"bus": [at(9, 9, colour="red")]}, 1),
        # only the most confident one counts
        ("a photo of a red bus", {"bus": [at(9, 9, colour="blue"), at(50, 9, colour="red")]}, 1 / 2),
        ("a photo of a dog left of a bench", {"dog": [at(9, 9)], "bench": [at(50, 9)]}, 1),
        ("a photo of a dog left of a bench", {"dog": [at(50, 9)], "bench": [at(9, 9)]}, 2 / 3),
        ("a photo of a dog left of a bench", {"dog": [at(50, 9)]}, 1 / 3),
    ],
)
def test_scores_by_hand(prompt: str, objects: dict[str, list[Found]], score: float) -> None:
    assert fulfilment(read_prompt(prompt), objects) == pytest.approx(score)


def plain(picture: Image.Image, scene: Scene) -> dict[str, list[Found]]:
    """A detector of filled rectangles on white: a "square" is one about as wide as high, a "bar" any other."""
    found: dict[str, list[Found]] = {"square": [], "bar": []}
    pixels = np.asarray(picture)
    for colour, value in {"red": (255, 0, 0), "blue": (0, 0, 255)}.items():
        rows, columns = np.nonzero((pixels == value).all(2))
        if len(rows):
            box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
            ratio = (box[2] - box[0]) / (box[3] - box[1])
            found["square" if 0.8 < ratio < 1.25 else "bar"].append(Found(box, 0.9, colour))
    return found


def drawn(**boxes: tuple[int, int, int, int]) -> Image.Image:
    picture = Image.new("RGB", (64, 64), "white")
    for colour, box in boxes.items():
        ImageDraw.Draw(picture).rectangle(box, fill=colour)
    return picture


def test_pictures_that_show_the_prompt_rank_first() -> None:
    pictures = [
        drawn(red=(4, 24, 19, 39), blue=(40, 8, 50, 55)),  # a red square left of a blue bar
        drawn(blue=(4, 24, 19, 39), red=(40, 8, 50, 55)),  # colours exchanged
        drawn(red=(40, 24, 55, 39), blue=(4, 8, 14, 55)),  # sides exchanged
        drawn(red=(4, 24, 19, 39)),
    ]
    coloured = SingleReward("geneval", SceneScore(plain, {}), differentiable=False)
    placed = SingleReward("geneval", SceneScore(plain, {}, strict=True), differentiable=False)
    scores = coloured(pictures, ["a photo of a red square and a blue bar"] * 4)
    assert scores.tolist() == [1.0, 0.5, 1.0, 0.5]
    assert placed(pictures, ["a photo of a square left of a bar"] * 4).tolist() == [1.0, 1.0, 0.0, 0.0]
    check_reward(coloured, prompts=["a photo of a red square", "a photo of two bars"], differentiable=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random OWLv2 of 4 × 4 patches, as transformers saves it."""
    from transformers import Owlv2Config, Owlv2ForObjectDetection

    tower = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**tower, "hidden_size": 16, "vocab_size": 518, "bos_token_id": 516, "eos_token_id": 517}
    vision = {**tower, "hidden_size": 16, "image_size": 32, "patch_size": 8}
    path = tmp_path_factory.mktemp("owl")
    torch.manual_seed(0)  # transformers draws weights from the global generator
    Owlv2ForObjectDetection(Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(
        path
    )
    write_clip_tokenizer(path)
    return path


def test_contract(folder: Path) -> None:
    reward = load_reward("geneval", checkpoint=folder, threshold=0.4)
    check_reward(
        reward, prompts=["a photo of two red apples", "a photo of a dog left of a bench"], differentiable=False
    )
    assert reward([Image.new("L", (1, 1)), Image.new("RGBA", (400, 10))], ["a photo of a dog"] * 2).isfinite().all()


def test_boxes_and_confidences_are_those_of_transformers(folder: Path) -> None:
    from transformers import Owlv2ForObjectDetection

    picture = Image.fromarray(np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8))
    owl = load_owl(folder, 0.2)
    logits, boxes = owl._seen(picture, ["a photo of a dog", "a photo of a red apple!"])
    begin, end = 516, 517
    rows = [owl.tokenizer(text, add_special_tokens=False).input_ids for text in ("a photo of a dog",)]
    ids = torch.tensor([[begin, *rows[0], end] + [0] * (16 - 2 - len(rows[0]))])
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = ((torch.tensor(np.asarray(picture)) / 255 - mean) / std).permute(2, 0, 1)[None]
    model: Any = Owlv2ForObjectDetection.from_pretrained(folder).eval()
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=(ids != 0).long(), pixel_values=pixels)
    torch.testing.assert_close(logits[:, :1], output.logits[0], atol=1e-4, rtol=1e-4)
    x, y, width, height = output.pred_boxes[0].unbind(1)
    expected = 32 * torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=1)
    torch.testing.assert_close(boxes, expected)


@dataclass
class Known:
    """A model that sees what it is told to, in place of the network."""

    logits: Tensor  # (P, Q)
    boxes: Tensor  # (P, 4) centre and size, relative to the padded square
    config: Any
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def __call__(self, **inputs: Tensor) -> SimpleNamespace:
        assert inputs["input_ids"].shape == (self.logits.shape[1], 16)
        return SimpleNamespace(logits=self.logits[None], pred_boxes=self.boxes[None])


def test_patches_become_objects_of_one_class_and_colour(folder: Path) -> None:
    queries = 2 + len(COLOURS)  # bench, apple, and the colours of apples
    logits = torch.full((5, queries), -5.0)
    logits[0, 1], logits[0, 2 + COLOURS.index("green")] = 2.0, 1.0
    logits[1, 1], logits[1, 2 + COLOURS.index("red")] = 1.0, 1.0  # the same object, seen less well
    logits[2, 1], logits[2, 2 + COLOURS.index("red")] = 0.5, 3.0  # another one
    logits[3, 0], logits[3, 1] = 3.0, 2.5  # more a bench than an apple
    boxes = torch.tensor(
        [[0.2, 0.1, 0.2, 0.2], [0.22, 0.1, 0.2, 0.2], [0.7, 0.1, 0.2, 0.2], [0.5, 0.3, 0.4, 0.2], [0.5, 0.5, 1, 1]]
    )
    tiny = load_owl(folder, 0.2)
    owl = Owl(Known(logits, boxes, tiny.model.config), tiny.tokenizer, 0.2)
    scene = read_prompt("a photo of a bench and a green apple")
    found = owl(Image.new("RGB", (100, 50)), scene)
    assert [one.colour for one in found["apple"]] == ["green", "red"]
    assert [one.colour for one in found["bench"]] == [""]
    assert found["bench"][0].confidence == pytest.approx(1 / (1 + np.exp(-3.0)))
    assert found["apple"][0].box == pytest.approx((10, 0, 30, 20))  # of the square of 100 × 100 pixels
    assert fulfilment(scene, found) == 1


def test_overlap_by_hand() -> None:
    others = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]])
    assert overlap(others[0], others).tolist() == pytest.approx([1, 2 / 6, 0])


def test_wrong_options_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="threshold 1"):
        load_reward("geneval", checkpoint=folder, threshold=1)
    with pytest.raises(RewardError, match="holds no model"):
        load_reward("geneval", checkpoint=tmp_path)
    with pytest.raises(RewardError, match="holds no metadata"):
        load_reward("geneval", checkpoint=folder, metadata=tmp_path / "missing.jsonl")
