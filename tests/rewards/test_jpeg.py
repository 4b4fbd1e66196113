"""Sizes of JPEG files, against files that are written here and against what must be smaller."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from rewards import load_reward
from rewards.errors import RewardError
from rewards.testing import check_reward


@pytest.mark.parametrize("spec", ["jpeg:compressibility", "jpeg:incompressibility", "jpeg(per_megapixel=true)"])
def test_contract(spec: str) -> None:
    check_reward(load_reward(spec), differentiable=False)


def test_the_score_is_the_size_of_the_file_in_thousands_of_bytes(tmp_path: Path) -> None:
    noise = torch.randint(0, 256, (40, 30, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=95)
    kilobytes = (tmp_path / "a.jpg").stat().st_size / 1000
    assert load_reward("jpeg:incompressibility")(noise[None], [""]).item() == pytest.approx(kilobytes)
    assert load_reward("jpeg")(noise[None], [""]).item() == pytest.approx(-kilobytes)
    dense = load_reward("jpeg", per_megapixel=True)(noise[None], [""]).item()
    assert dense == pytest.approx(-kilobytes / (40 * 30 / 1e6))


def test_a_flat_picture_is_smaller_than_noise_and_a_low_quality_smaller_than_a_high_one() -> None:
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pictures = torch.cat([torch.full_like(noise, 0.5), noise])
    flat, noisy = load_reward("jpeg")(pictures, ["", ""]).tolist()
    assert noisy < flat < 0
    assert load_reward("jpeg(quality=20)")(noise, [""]).item() > noisy


def test_modes_and_mixed_sizes_are_taken() -> None:
    pictures = [Image.new("L", (1, 1)), Image.new("RGBA", (400, 10)), Image.new("P", (10, 400))]
    assert load_reward("jpeg")(pictures, [""] * 3).isfinite().all()


@pytest.mark.parametrize(
    ("spec", "said"), [("jpeg:size", "jpeg:compressibility or"), ("jpeg(quality=96)", "from 1 to 95")]
)
def test_what_is_wrong_is_said(spec: str, said: str) -> None:
    with pytest.raises(RewardError, match=said):
        load_reward(spec)
