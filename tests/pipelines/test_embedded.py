"""The shipped text-to-image model: whole, small, and able to do what its card says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.loading import load_pipeline
from rewards.shapes import VOCABULARY
from rewards.shapes.reward import ShapesReward

FOLDER = Path(__file__).parents[2] / "pipelines" / "embedded"
DEFAULTS = json.loads((FOLDER / "defaults.json").read_text())


@pytest.fixture(scope="module")
def pipe() -> object:
    torch.set_num_threads(1)
    return load_pipeline("embedded", device="cpu")


def pictures(pipe: object, prompt: str, seeds: range) -> np.ndarray:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipe([prompt] * len(seeds), generator=generators, output_type="np", **DEFAULTS).images


def test_the_folder_holds_float32_safetensors_of_at_most_30_mb(pipe: object) -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 30e6
    assert {path.suffix for path in files} <= {".json", ".md", ".safetensors", ".py", ".pyc"}
    assert {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}
    assert sum(weight.numel() for weight in pipe.unet.parameters()) == 1_034_596


def test_every_word_is_one_token(pipe: object) -> None:
    for word in VOCABULARY:
        ids = pipe.tokenizer(word.upper()).input_ids
        assert [pipe.tokenizer.decode(one).strip() for one in ids[1:-1]] == [word]


def test_it_draws_what_it_is_told(pipe: object) -> None:
    """Four noises of a sentence on which nine candidates in ten pass: two of them must."""
    prompt = "a red circle"
    images = pictures(pipe, prompt, range(4))
    assert images.shape == (4, 64, 64, 3)
    scores = ShapesReward()(torch.from_numpy(images).permute(0, 3, 1, 2), [prompt] * 4)
    assert (scores >= 1).sum() >= 2
    assert images[:, 0].mean((1, 2)).min() > 0.6  # a light ground


def test_a_seed_is_a_picture_whatever_the_batch(pipe: object) -> None:
    both = pictures(pipe, "a blue star", range(2))
    assert np.abs(both[1] - pictures(pipe, "a blue star", range(1, 2))[0]).max() < 1e-3


def test_the_card_holds_the_figures() -> None:
    """Every rate of figures.json stands in the card's table, and the aims are met."""
    figures = json.loads((FOLDER / "figures.json").read_text())
    card = (FOLDER / "README.md").read_text()
    for skill, row in figures["skills"].items():
        assert f"| {skill} | {row['prompts']} | {100 * row['single']:.1f} % |" in card
    assert 0.5 <= figures["skills"]["six skills"]["single"] <= 0.7
    assert figures["skills"]["six skills"]["best_of_16"] >= 0.98
    assert figures["dark_pictures"] == 0
    assert all(0.2 <= figures["skills"][skill]["single"] <= 0.45 for skill in ("position", "two_object", "three_attr"))
    assert figures["previews"]["10"]["correlation_within_prompt"] >= 0.7
