"""Gradients of published checkpoints: floating-point pictures go where PIL's go, scores stay what they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rewards import load_reward
from rewards.llava.anyres import anyres
from rewards.llava.backbone import Picture
from rewards.llava.hd_transform import hd_transform
from rewards.llava.layouts import middle
from rewards.llava.normalise import Normalise
from rewards.llava.qwen_resize import qwen_picture
from rewards.llava.soft import AnyImage, SoftImage
from rewards.views import to_tensor
from tests.rewards.llava.cases import CASES, GOLDENS, Library

WAYS: dict[str, Callable[[AnyImage], Picture]] = {
    "phi, 4 crops": lambda image: hd_transform(image, num_crops=4),
    "phi, 1 crop": lambda image: hd_transform(image, num_crops=1),
    "llava-next": lambda image: anyres(
        image, tile=28, resolutions=[(28, 56), (56, 28), (56, 56)], normalise=Normalise()
    ),
    "llava": lambda image: middle(image, 28, Normalise()),
    "qwen": lambda image: qwen_picture(image, limits=(56 * 56, 112 * 112)),
}
STEP = 1 / 255 / min(Normalise().std)  # one level of a byte, normalised


def muted(width: int, height: int) -> Image.Image:
    """Noise of little contrast, so that no kernel leaves [0, 255]."""
    draws = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(draws.integers(96, 160, (height, width, 3), dtype=np.uint8))


def soft(image: Image.Image) -> SoftImage:
    return SoftImage(torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255)


@pytest.mark.parametrize("size", [(64, 64), (97, 41), (41, 97), (300, 200), (28, 28)], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_floating_point_pictures_differ_by_rounding_alone(way: str, size: tuple[int, int]) -> None:
    """A resize rounds its columns and its rows: half a level each, which the next resize spreads."""
    exact, found = (WAYS[way](image) for image in (muted(*size), soft(muted(*size))))
    assert found.size == exact.size
    off = (found.pixels - exact.pixels).abs()
    assert off.max() < 3 * STEP
    assert off.mean() < 0.5 * STEP


@pytest.mark.parametrize("side", [60, 90])
@pytest.mark.parametrize("way", WAYS)
def test_each_pixel_of_a_square_picture_is_seen(way: str, side: int) -> None:
    pixels = torch.full((3, side, side), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(WAYS[way](SoftImage(pixels)).pixels.sum(), pixels)
    assert bool((gradient > 0).all())


REWARDS = ["phi3v.bt_ca.single.crops1", "qwen.bt.single", "llava.bt.single", "phi3v.cls.cls3.crops4"]


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    draws = torch.Generator().manual_seed(0)
    return (torch.rand(2, 3, 70, 50, generator=draws) * 255).round() / 255


@pytest.mark.parametrize("name", REWARDS)
def test_a_score_is_the_same_with_a_gradient(library: Library, pictures: Tensor, name: str) -> None:
    case: dict[str, Any] = CASES[name]
    crops = {} if case["num_crops"] is None else {"num_crops": case["num_crops"]}
    reward = load_reward(
        "llava-reward", checkpoint=GOLDENS / case["adapter"], base=library.base_folder(case), device="cpu", **crops
    )
    prompts = ["a red heart", "two green stars, and a long sentence behind"]
    leaf = pictures.clone().requires_grad_()
    scores = reward(leaf, prompts)
    torch.testing.assert_close(scores.detach(), reward(pictures, prompts), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(scores[0], leaf)
    assert bool((gradient[0] != 0).any())
    assert not bool(gradient[1].any())  # of another picture


def test_the_gradient_climbs() -> None:
    """Ten small steps along the gradient's sign raise a score by more than chance does."""
    reward = load_reward("llava-reward:embedded-fidelity")
    image = to_tensor(muted(64, 64))[None]
    first = float(reward(image, ["a red heart"]))
    for _ in range(10):
        leaf = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(reward(leaf, ["a red heart"]).sum(), leaf)
        image = (image + 2 / 255 * gradient.sign()).clamp(0, 1)
    draws = torch.Generator().manual_seed(0)
    noise = to_tensor(muted(64, 64))[None] + 20 / 255 * torch.randn(image.shape, generator=draws).sign()
    assert float(reward(image, ["a red heart"])) > first + 0.5
    assert float(reward(noise.clamp(0, 1), ["a red heart"])) < first + 0.1
