"""Prompts byte for byte, token layouts, and the numbers of tokens that pictures take."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rewards.errors import ImageError, RewardError
from rewards.llava.anyres import best_resolution, visual_count
from rewards.llava.backbone import Inputs, Picture, batch, last_rows
from rewards.llava.families import load_tokenizer
from rewards.llava.hd_transform import hd_transform
from rewards.llava.layouts import (
    PhiInputs,
    llava_inputs,
    llava_next_inputs,
    llava_text,
    phi_text,
    qwen_limits,
    qwen_text,
)
from rewards.llava.normalise import Normalise
from rewards.llava.phi3v import visual_count as phi_count
from rewards.llava.qwen import visual_count as qwen_count
from rewards.llava.qwen_resize import qwen_picture, smart_size
from tests.rewards.llava.cases import GOLDENS, Library, picture

PROMPT = "a red  fox, crème brûlée "  # spaces in a row and at the end stay


def test_the_three_texts() -> None:
    assert phi_text(PROMPT) == "<|user|>\n<|image_1|>\na red  fox, crème brûlée <|endoftext|>"
    assert qwen_text(PROMPT) == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>a red  fox, crème brûlée <|im_end|>"
    )
    assert llava_text(PROMPT) == "USER: <image>\na red  fox, crème brûlée </s>"


def test_phi_layout_of_a_square_picture() -> None:
    """Begin, user tag, 2509 slots, begin again, text, end; the end's id is the padding's."""
    inputs = PhiInputs(load_tokenizer(GOLDENS / "phi3v/base"))
    seen = inputs.picture(picture("square"))
    ids = inputs.ids("a red fox", seen)
    assert ids[0] == 1
    assert ids.count(1) == 2
    first = ids.index(-1)
    assert ids[first : first + 2509] == [-1] * 2509
    assert ids.count(-1) == 2509
    assert ids[first + 2509] == 1
    assert ids[-1] == inputs.pad_id == 558


@pytest.mark.parametrize(
    ("size", "crops", "count"),
    [((1024, 1024), 16, 2509), ((512, 512), 16, 2509), ((1024, 768), 12, 1921), ((768, 1024), 12, 1933),
     ((1280, 720), 15, 2353), ((720, 1280), 15, 2377)],
)  # fmt: skip
def test_phi_token_counts_of_the_specification(size: tuple[int, int], crops: int, count: int) -> None:
    seen = hd_transform(Image.new("RGB", size), num_crops=16)
    assert len(seen.pixels) == 1 + crops
    assert phi_count(seen.size) == count


@pytest.mark.parametrize(("edge", "count"), [(512, 324), (768, 729), (1024, 1225)])
def test_qwen_token_counts_of_the_specification(edge: int, count: int) -> None:
    """Those of limits 256 · 28² and 1280 · 28² pixels."""
    seen = qwen_picture(Image.new("RGB", (edge, edge)), limits=(256 * 784, 1280 * 784))
    assert qwen_count(seen.size) == count
    assert len(seen.pixels) == 4 * count


@pytest.mark.parametrize("edge", [512, 1024])
def test_llava_token_counts_of_the_specification(edge: int) -> None:
    grid = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    assert best_resolution((edge, edge), grid) == (672, 672)
    assert visual_count((edge, edge), side=24, tile=336, resolutions=grid) == 576 + 48 * 49


def test_white_stands_around_a_phi_picture_and_black_around_a_llava_picture() -> None:
    grey = Image.new("RGB", (400, 90), (128, 128, 128))
    phi = hd_transform(grey, num_crops=4, normalise=Normalise((0, 0, 0), (1, 1, 1)))
    assert phi.size == (336, 1344)
    assert (phi.pixels[1:, :, 0] == 1).all()
    assert (phi.pixels[1:, :, 168] == 128 / 255).all()
    config = {
        "image_token_index": 9,
        "image_grid_pinpoints": [[112, 224]],
        "vision_config": {"image_size": 112, "patch_size": 14},
    }
    settings = {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
    llava = llava_next_inputs(None, config, settings).picture(grey)
    assert (llava.pixels[1:, :, 0] == 0).all()
    assert (llava.pixels[1:, :, 56] == 128 / 255).all()


def test_plain_llava_sees_the_middle() -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    config: dict[str, Any] = {"image_token_index": 9, "vision_config": {"image_size": 56, "patch_size": 14}}
    inputs = llava_inputs(None, config, {})
    processor = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    for name in ("cat_a", "tall", "wide", "gray", "tiny"):
        expected = processor(picture(name).convert("RGB"), return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(inputs.picture(picture(name)).pixels, expected, atol=1e-5, rtol=0)
    assert inputs.count(inputs.picture(picture("tall"))) == 16  # type: ignore[attr-defined]


def test_a_transparent_qwen_picture_lies_on_white() -> None:
    clear = Image.new("RGBA", (56, 56), (0, 0, 0, 0))
    pixels = qwen_picture(clear, limits=(784, 784000), normalise=Normalise((0, 0, 0), (1, 1, 1))).pixels
    assert (pixels == 1).all()


def test_a_qwen_picture_of_extreme_shape_is_refused() -> None:
    with pytest.raises(ImageError, match="200"):
        smart_size(2, 500, (784, 784000))


def test_a_phi_picture_of_extreme_shape_is_refused() -> None:
    assert hd_transform(Image.new("RGB", (5000, 1)), num_crops=16).size == (336, 5376)
    with pytest.raises(ImageError, match="too thin"):
        hd_transform(Image.new("RGB", (1, 6000)), num_crops=16)


def test_limits_in_both_forms_of_the_settings() -> None:
    assert qwen_limits({"min_pixels": 3136, "max_pixels": 9}) == (3136, 9)
    assert qwen_limits({"size": {"shortest_edge": 3136, "longest_edge": 12845056}}) == (3136, 12845056)


@pytest.mark.parametrize(
    ("adapter", "slot"), [("phi3v/bt_ca", "<|image_2|>"), ("qwen/bt", "<|image_pad|>"), ("llava/bt", "<image>")]
)
def test_a_prompt_must_not_mark_the_pictures_place(library: Library, adapter: str, slot: str) -> None:
    inputs: Inputs = library.model(adapter).inputs
    with pytest.raises(RewardError, match="leave it out"):
        inputs.ids(f"a {slot} fox", inputs.picture(picture("tiny")))


def test_no_crops_are_refused() -> None:
    with pytest.raises(RewardError, match="num_crops 0"):
        PhiInputs(None, num_crops=0)


def test_batches_are_padded_on_either_side() -> None:
    seen = Picture(torch.zeros(1), (1, 1))
    tokens = batch([[5, 6, 7], [8]], [seen, seen], 0)
    assert tokens.ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert tokens.mask.tolist() == [[True] * 3, [True, False, False]]
    assert last_rows(tokens.mask).tolist() == [[2], [0]]
    tokens = batch([[5, 6, 7], [8]], [seen, seen], 0, side="left")
    assert tokens.ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert tokens.mask.tolist() == [[True] * 3, [False, False, True]]
    assert last_rows(tokens.mask).tolist() == [[2], [2]]


TEXT = "  two spaces, an é and 漢字\n"


@pytest.mark.parametrize("family", ["phi3v", "llava"])
def test_the_tokenizer_is_that_of_the_file(family: str) -> None:
    """tokenizer.json decides, whatever a class of the library would make of its vocabulary."""
    from tokenizers import Tokenizer

    folder = GOLDENS / family / "base"
    expected = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids
    assert load_tokenizer(folder)(TEXT).input_ids == expected


@pytest.mark.parametrize(
    ("change", "begin", "end"),
    [
        ({}, [1], []),
        ({"add_bos_token": False}, [], []),
        ({"add_bos_token": None, "add_eos_token": True}, [], [558]),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, [], []),
    ],
)
def test_begin_and_end_are_those_of_the_settings(
    tmp_path: Path, change: dict[str, Any], begin: list[int], end: list[int]
) -> None:
    """A Llama tokenizer of transformers 4 rebuilds them; here tokenizer.json itself asks for none."""
    base = GOLDENS / "phi3v/base"
    contents = {name: json.loads((base / name).read_text()) for name in ("tokenizer.json", "tokenizer_config.json")}
    contents["tokenizer.json"]["post_processor"] = None
    contents["tokenizer_config.json"] |= change
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content))
    tokenizer = load_tokenizer(tmp_path)
    words = tokenizer(TEXT, add_special_tokens=False).input_ids
    assert tokenizer(TEXT).input_ids == [*begin, *words, *end]


def test_normalise_is_per_channel() -> None:
    image = Image.fromarray(np.full((2, 2, 3), (0, 51, 255), np.uint8))
    pixels = Normalise((0.5, 0.2, 0.0), (0.5, 1.0, 2.0))(image)
    torch.testing.assert_close(pixels[:, 0, 0], torch.tensor([-1.0, 0.0, 0.5]))
