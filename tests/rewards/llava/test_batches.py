"""Which rows run together, what pictures are taken, and what happens when memory runs out."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rewards import load_reward
from rewards.errors import ImageError, RewardError
from rewards.llava.backbone import Picture
from rewards.llava.batches import MicroBatches, Row
from rewards.llava.pictures import as_pictures
from tests.rewards.llava.cases import GOLDENS, picture


@pytest.fixture(scope="module")
def reward() -> Any:
    return load_phi("bt_ca")


def load_phi(name: str, **options: Any) -> Any:
    folder = GOLDENS / "phi3v"
    return load_reward(
        "llava-reward", checkpoint=folder / name, base=folder / "base", device="cpu", num_crops=1, **options
    )


def rows(lengths: Sequence[int], picture_of: Sequence[int] | None = None) -> list[Row]:
    pictures = [Picture(torch.zeros(1), (1, 1)) for _ in lengths]
    of = picture_of or range(len(lengths))
    return [
        Row(pictures[which], [index] * length) for index, (which, length) in enumerate(zip(of, lengths, strict=True))
    ]


class Memory:
    """A forward pass that holds a limited number of rows, and answers with the row's first id."""

    def __init__(self, holds: int) -> None:
        self.holds = holds
        self.tried: list[list[int]] = []

    def __call__(self, batch: Sequence[Row]) -> torch.Tensor:
        self.tried.append([row.ids[0] for row in batch])
        if len(batch) > self.holds:
            raise torch.OutOfMemoryError
        return torch.tensor([[float(row.ids[0])] for row in batch])


def test_rows_run_by_length_and_come_back_in_order() -> None:
    memory = Memory(9)
    assert MicroBatches(memory, 2)(rows([3, 9, 5, 7, 1])).flatten().tolist() == [0, 1, 2, 3, 4]
    assert memory.tried == [[1, 3], [2, 0], [4]]


def test_rows_of_one_picture_run_together() -> None:
    memory = Memory(9)
    MicroBatches(memory, 3)(rows([5, 5, 6, 9, 4], [0, 1, 0, 2, 0]))
    assert memory.tried == [[2, 0, 4], [3, 1]]


def test_a_batch_that_does_not_fit_is_halved_once_for_all() -> None:
    memory = Memory(2)
    batches = MicroBatches(memory, 8)
    assert batches(rows([4] * 9)).flatten().tolist() == list(range(9))
    assert [len(tried) for tried in memory.tried] == [8, 4, 2, 2, 2, 2, 1]
    batches(rows([4] * 3))
    assert [len(tried) for tried in memory.tried[7:]] == [2, 1]


def test_prompts_on_one_picture_have_a_limit_of_their_own() -> None:
    memory = Memory(2)
    batches = MicroBatches(memory, 1, prompts=4)
    assert batches(rows([4] * 7, [0, 0, 1, 0, 0, 0, 2])).flatten().tolist() == list(range(7))
    assert memory.tried == [[0, 1, 3, 4], [0, 1], [3, 4], [5], [2], [6]]
    assert (batches.size, batches.prompts) == (1, 2)


def test_when_not_even_one_fits() -> None:
    with pytest.raises(RewardError, match="does not hold 1 picture at once; take dtype='bfloat16'"):
        MicroBatches(Memory(0), 4)(rows([1, 2]))


def test_fixed_batches_are_neither_sorted_nor_halved() -> None:
    memory = Memory(2)
    MicroBatches(memory, 2, fixed=True)(rows([3, 9, 5]))
    assert memory.tried == [[0, 1], [2]]
    with pytest.raises(RewardError, match="take a smaller batch_size"):
        MicroBatches(memory, 3, fixed=True)(rows([3, 9, 5]))


def test_a_window_of_pictures_is_no_border(reward: Any) -> None:
    images = [picture(name) for name in ("wide", "tall", "square", "tiny", "gray")]
    prompts = [f"a picture number {number}" for number in range(5)]
    small = load_phi("bt_ca")
    small.batches.size = 2  # windows of four pictures
    torch.testing.assert_close(small(images, prompts), reward(images, prompts), rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize(
    "prompts", [["a cat", ""], ["a cat", " \n"], ["a cat", None], ["a cat"], "a cat", ["a cat", "a \ud800 cat"]]
)
def test_prompts_that_are_refused(reward: Any, prompts: Any) -> None:
    with pytest.raises(RewardError, match="expected"):
        reward([picture("tiny")] * 2, prompts)


@pytest.mark.parametrize("prompts", [["a cat"], ["a cat", "a cat", "a dog"]])
def test_a_head_that_compares_gives_no_score_to_one_picture(prompts: list[str]) -> None:
    with pytest.raises(RewardError, match="only compares pictures of one prompt; give it two or more"):
        load_phi("gpm2")([picture("tiny")] * len(prompts), prompts)


def test_empty_prompts_are_scored_where_they_are_allowed(reward: Any) -> None:
    """As data without prompts is: the picture's slot, a line break, the end of sentence."""
    allowing = load_phi("bt_ca", allow_empty=True)
    images, prompts = [picture("tiny"), picture("wide"), picture("tiny")], ["", "a cat", " "]
    scores = allowing(images, prompts)
    torch.testing.assert_close(scores[1:2], reward(images[1:2], ["a cat"]), rtol=1e-4, atol=3e-5)
    torch.testing.assert_close(scores[:1], allowing(images[:1], [""]), rtol=1e-4, atol=3e-5)
    assert scores[0] != scores[2]  # nothing is stripped


def test_heads_of_a_picture_alone_are_there() -> None:
    assert load_phi("gpm2").heads([picture("tiny")], ["a cat"]).shape == (1, 2)


def test_preferences_need_one_prompt(reward: Any) -> None:
    with pytest.raises(RewardError, match="one string for all pictures"):
        reward.preference([picture("tiny")] * 2, ["a cat", "a cat"])


def test_scores_that_are_not_finite_name_the_candidate() -> None:
    broken = load_phi("bt_ca")
    broken.scorer.head.value_head.weight.fill_(torch.nan)
    with pytest.raises(RewardError, match="not finite for candidate 0"):
        broken([picture("tiny")], ["a cat"])


def test_sixteen_bits_become_eight() -> None:
    deep = np.array([[0, 257, 65535], [128 * 257, 300, 65000]], np.uint16)
    (seen,) = as_pictures([Image.fromarray(deep)])
    assert seen.mode == "L"
    assert np.asarray(seen).tolist() == [[0, 1, 255], [128, 1, 253]]


def test_of_an_animation_the_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    (seen,) = as_pictures([Image.open(file)])
    assert seen.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_pictures_that_are_refused() -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    with pytest.raises(ImageError, match="Picture 1 cannot be decoded"):
        as_pictures([Image.new("RGB", (4, 4)), Image.open(io.BytesIO(file.getvalue()[:-900]))])
    with pytest.raises(ImageError, match="floating-point"):
        as_pictures([Image.new("F", (4, 4))])
    with pytest.raises(ImageError, match="at least one PIL image"):
        as_pictures([])


def test_the_same_object_stays_the_same_object() -> None:
    image, other = Image.new("I;16", (4, 4)), Image.new("RGB", (4, 4))
    first, second, third = as_pictures([image, other, image])
    assert first is third
    assert first is not second
