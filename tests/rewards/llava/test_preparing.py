"""Which pictures are prepared when, and that rows come back in their order whatever ran together."""

import threading
from typing import Any

import pytest
import torch
from PIL import Image

from rewards import load_reward
from rewards.llava.backbone import Picture
from rewards.llava.preparing import by_picture, in_order, prepared, reunited
from tests.rewards.llava.cases import GOLDENS, picture, tolerance


class Counting:
    """Inputs that remember which pictures they prepared."""

    pad_id = 0

    def __init__(self) -> None:
        self.widths: list[int] = []
        self.second = threading.Event()

    def picture(self, image: Image.Image) -> Picture:
        self.widths.append(image.width)
        if image.width == 2:
            self.second.set()
        return Picture(torch.zeros(1), image.size)

    def text(self, prompt: str) -> str:
        return prompt

    def ids(self, prompt: str, picture: Picture) -> list[int]:
        return [picture.size[0], len(prompt)]


def images_of(*widths: int) -> list[Image.Image]:
    """One object for each width."""
    distinct = {width: Image.new("RGB", (width, 1)) for width in widths}
    return [distinct[width] for width in widths]


def test_windows_hold_all_rows_of_a_picture() -> None:
    images = images_of(7, 8, 7, 9, 8)
    assert by_picture(images, 1) == [[0, 2], [1, 4], [3]]
    assert by_picture(images, 2) == [[0, 2, 1, 4, 3]]
    assert in_order(5, 2) == [[0, 1], [2, 3], [4]]


def test_outputs_come_back_in_the_order_of_the_rows() -> None:
    parts = [torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [4.0]]), torch.tensor([[3.0]])]
    assert reunited([[0, 2], [1, 4], [3]], parts).flatten().tolist() == [0, 1, 2, 3, 4]


def test_only_the_next_window_is_prepared_ahead_and_while_this_one_is_scored() -> None:
    inputs = Counting()
    images = images_of(1, 2, 3, 4)
    windows = prepared(inputs, images, ["a", "bb", "ccc", "dddd"], by_picture(images, 1))
    first = next(windows)
    assert inputs.second.wait(10)  # nobody has asked for the second window yet
    assert inputs.widths == [1, 2]
    assert [row.ids for row in first.rows] == [[1, 1]]
    assert [row.ids for window in windows for row in window.rows] == [[2, 2], [3, 3], [4, 4]]
    assert inputs.widths == [1, 2, 3, 4]


@pytest.mark.parametrize("pooling", ["eos", "mean"])
def test_many_prompts_on_a_picture_give_the_single_numbers(pooling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pictures in turns: each is seen once, and behind it the prompts share what they begin with."""
    folder = GOLDENS / "phi3v"
    reward: Any = load_reward(
        "llava-reward", checkpoint=folder / "bt_ca", base=folder / "base", device="cpu", num_crops=1, pooling=pooling
    )
    images = [picture("wide"), picture("tiny")] * 4
    prompts = [f"a red fox number {number}" + " in snow" * (number % 3) for number in range(8)]
    alone = torch.cat([reward([image], [prompt]) for image, prompt in zip(images, prompts, strict=True)])
    assert len(set(alone.tolist())) == 8
    seen: list[int] = []
    features = reward.scorer.backbone.features
    monkeypatch.setattr(
        reward.scorer.backbone, "features", lambda pictures: [seen.append(len(pictures)), features(pictures)][1]
    )
    torch.testing.assert_close(reward(images, prompts), alone, **tolerance("reward"))
    assert sum(seen) == (2 if pooling == "eos" else 8)


def test_a_cpu_takes_one_picture_at_a_time_unless_companions_count() -> None:
    folder = GOLDENS / "phi3v"
    default, official, chosen = (
        load_reward("llava-reward", checkpoint=folder / "bt_ca", base=folder / "base", device="cpu", **options)
        for options in ({}, {"skipca": "official"}, {"batch_size": 3})
    )
    sizes = [(reward.batches.size, reward.batches.prompts) for reward in (default, official, chosen)]  # type: ignore[union-attr]
    assert sizes == [(1, 64), (16, 16), (3, 64)]
