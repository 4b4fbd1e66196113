"""The pixel rewards, against numbers done by hand."""

import pytest
import torch

from rewards import load_reward
from rewards.testing import check_reward


def score(name: str, image: torch.Tensor) -> float:
    return load_reward(f"pixels:{name}")(image[None], ["anything"]).item()


@pytest.mark.parametrize("name", ["brightness", "colorfulness", "sharpness"])
def test_they_keep_the_contract(name: str) -> None:
    check_reward(load_reward(f"pixels:{name}"), differentiable=True, tolerance=1e-5)


def test_brightness_is_the_mean_of_luma() -> None:
    red, white = torch.zeros(3, 4, 4), torch.ones(3, 4, 4)
    red[0] = 1
    assert score("brightness", red) == pytest.approx(0.299, abs=1e-6)
    assert score("brightness", white) == pytest.approx(1.0, abs=1e-6)


def test_colorfulness_of_grey_is_zero_and_of_red_and_cyan_halves_is_known() -> None:
    assert score("colorfulness", torch.full((3, 4, 4), 0.4)) == pytest.approx(0.0, abs=1e-6)
    halves = torch.zeros(3, 4, 4)
    halves[0, :, :2] = 1  # red: rg 1, yb 0.5
    halves[1:, :, 2:] = 1  # cyan: rg -1, yb -0.5; means 0, variances 1 and 0.25
    assert score("colorfulness", halves) == pytest.approx(1.25**0.5, abs=1e-6)


def test_sharpness_of_stripes_is_one_and_of_a_checkerboard_two() -> None:
    stripes = torch.zeros(3, 4, 4)
    stripes[..., ::2] = 1
    assert score("sharpness", stripes) == pytest.approx(1.0, abs=1e-6)
    board = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    assert score("sharpness", board.expand(3, 4, 4).float()) == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("name", ["brightness", "colorfulness", "sharpness"])
@pytest.mark.parametrize("size", [(1, 1), (10, 400), (400, 1)])
def test_pictures_of_any_shape_have_a_score(name: str, size: tuple[int, int]) -> None:
    assert score(name, torch.zeros(3, *size)) == 0
    white_beside_black = torch.zeros(3, 1, 2)
    white_beside_black[..., 1] = 1
    assert score("sharpness", white_beside_black) == pytest.approx(1)
