"""The boundary: three forms of pictures become one, and what cannot be scored is refused with a sentence."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from rewards.base import as_images, check_prompts, check_scores
from rewards.errors import ImageError, RewardError, ScoreError

ARRAY = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)


def test_the_three_forms_give_the_same_tensor() -> None:
    from_array = as_images(ARRAY)
    assert from_array.shape == (3, 3, 4, 5)
    assert from_array.dtype == torch.float32
    assert from_array[1, 2, 3, 4].item() == pytest.approx(ARRAY[1, 3, 4, 2] / 255, abs=1e-7)
    assert torch.equal(as_images([Image.fromarray(picture) for picture in ARRAY]), from_array)
    assert as_images(from_array) is from_array  # not even a copy: the gradient stays


def test_grey_and_transparent_pil_images_become_rgb() -> None:
    grey = Image.new("L", (4, 4), 51)
    clear = Image.new("RGBA", (4, 4), (51, 51, 51, 0))
    assert as_images([grey, clear]).eq(0.2).all()


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(3, 8, 8), r"shape \(3, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8), r"shape \(2, 1, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), "empty"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "divide bytes by 255"),
        (torch.full((1, 3, 8, 8), -1.0), r"images / 2 \+ 0.5"),
        (torch.full((1, 3, 8, 8), float("nan")), "nan"),
        (np.zeros((1, 8, 8, 3)), "float64"),
        (np.zeros((8, 8, 3), np.uint8), r"shape \(8, 8, 3\)"),
        ([], "list"),
        ("picture.png", "str"),
        ([Image.new("RGB", (4, 4)), Image.new("RGB", (4, 5))], "one size"),
    ],
)
def test_what_is_no_batch_of_pictures_is_refused(images: object, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        as_images(images)  # type: ignore[arg-type]


def test_rounding_of_a_decoder_passes_the_range_check() -> None:
    as_images(torch.tensor([-5e-4, 1.0005, 0.5]).expand(1, 2, 2, 3).permute(0, 3, 1, 2))


def test_one_string_for_many_images_is_refused_with_the_cure() -> None:
    with pytest.raises(RewardError, match=r"\['a red circle'\] \* 2"):
        check_prompts(torch.zeros(2, 3, 4, 4), "a red circle")
    with pytest.raises(RewardError, match="2 images and 1 prompts"):
        check_prompts(torch.zeros(2, 3, 4, 4), ["a red circle"])


def test_scores_that_cannot_rank_name_reward_and_candidate() -> None:
    with pytest.raises(ScoreError, match=r"'mine' gave nan for candidate 1 \(2 of 3"):
        check_scores(torch.tensor([0.0, float("nan"), float("inf")]), "mine", 3)
    with pytest.raises(ScoreError, match=r"'mine' gave scores of shape \(3, 1\)"):
        check_scores(torch.zeros(3, 1), "mine", 3)
    assert check_scores(torch.zeros(2, dtype=torch.bfloat16), "mine", 2).dtype == torch.float32


def test_pil_images_of_every_mode_become_rgb() -> None:
    grey = Image.new("L", (2, 2), 156)
    deep = Image.fromarray(np.full((2, 2), 156 * 257, np.uint16))
    palette = grey.convert("P")
    clear = Image.new("RGBA", (2, 2), (156, 156, 156, 7))
    pixels = as_images([grey, deep, palette, clear, grey.convert("LA")])
    assert pixels.sub(156 / 255).abs().max() < 1e-6


def test_what_is_no_picture_is_refused() -> None:
    whole = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(whole, "PNG")
    damaged = Image.open(io.BytesIO(whole.getvalue()[:70]))
    with pytest.raises(ImageError, match="Picture 1 cannot be decoded"):
        as_images([Image.new("RGB", (64, 64)), damaged])
    with pytest.raises(ImageError, match="floating-point"):
        as_images([Image.new("F", (2, 2))])
    with pytest.raises(ImageError, match="Got no images"):
        as_images([])
