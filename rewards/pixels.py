"""Rewards that are exact functions of the pixels: offline, instant, and known to the last digit in tests.

They do not look at the prompt. `load_reward("pixels:brightness")`, `"pixels:colorfulness"`, `"pixels:sharpness"`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from rewards.base import Images, ImagesLike, Scores, as_images, check_prompts, check_scores
from rewards.nearest import check_variant

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class PixelReward:
    """A function of the pixels as a `Reward`; differentiable with respect to a tensor of images.

    Attributes:
        name: "pixels:" and the function's name.
        measure: (N, 3, H, W) in [0, 1] to (N,).
    """

    name: str
    measure: Callable[[Images], Tensor]
    absolute: bool = True
    differentiable: bool = True

    @cached_property
    def revision(self) -> str:
        """Hash of this file, for records and caches: there are no weights."""
        from rewards.fingerprints import fingerprint

        return fingerprint([Path(__file__)], "")

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores of N pictures, (N,) float32; the prompts are only counted."""
        pixels = as_images(images)
        check_prompts(pixels, prompts)
        return check_scores(self.measure(pixels.to(torch.float32)), self.name, len(pixels))


def luma(images: Images) -> Tensor:
    """Perceived lightness of each pixel in [0, 1], (N, H, W)."""
    return torch.einsum("nchw,c->nhw", images, images.new_tensor(_LUMA))


def brightness(images: Images) -> Scores:
    """Mean lightness, in [0, 1]."""
    return luma(images).mean((1, 2))


def colorfulness(images: Images) -> Scores:
    """Hasler and Süsstrunk's colourfulness for values in [0, 1] (Human Vision and Electronic Imaging VIII, 2003).

    With rg = R - G and yb = (R + G) / 2 - B: sqrt(var rg + var yb) + 0.3 sqrt(mean² rg + mean² yb).
    """
    red, green, blue = images.unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=1).flatten(2)  # (N, 2, H * W)
    spread = opponents.var(-1, correction=0).sum(1)
    shift = opponents.mean(-1).square().sum(1)
    return _root(spread) + 0.3 * _root(shift)


def sharpness(images: Images) -> Scores:
    """Mean squared difference of neighbouring pixels' lightness, along columns plus rows; 0 if flat, at most 2.

    Where a picture is one pixel high or wide there are no neighbours, and nothing is added.
    """
    light = luma(images)  # (N, H, W)
    steps = [light.diff(dim=dim) for dim in (1, 2)]
    return torch.stack([step.square().sum((1, 2)) / max(1, step[0].numel()) for step in steps]).sum(0)


def load_pixels(variant: str = "") -> PixelReward:
    """The pixel reward of this name.

    Raises:
        UnknownRewardError: there is none.
    """
    measures = {"brightness": brightness, "colorfulness": colorfulness, "sharpness": sharpness}
    check_variant("pixels", variant, tuple(measures))
    return PixelReward(f"pixels:{variant}", measures[variant])


def _root(square: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 rather than infinite."""
    return torch.where(square > 0, square.clamp(min=1e-12).sqrt(), torch.zeros_like(square))
