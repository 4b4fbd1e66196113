"""What a square vision tower sees of a picture: cut to the middle, or whole with black margins.

Each view comes twice. `of_picture` repeats to the byte what the published preprocessing makes of a PIL image; a ranking
stands on it. `of_tensor` does the same with gradients; it differs where PIL rounds to bytes after each of its two
passes, by at most `TOLERANCE` in any pixel for pictures of whole bytes.

References: `torchvision.transforms` (Resize, CenterCrop), transformers' `CLIPImageProcessor`, and
github.com/tgxs002/HPSv2, `hpsv2/src/open_clip/transform.py`.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from rewards.base import Images

TOLERANCE = 1.5 / 255  # between the two ways, in pixel values in [0, 1]


class View(Protocol):
    """From pictures of any size to squares of one size.

    Attributes:
        size: edge of the square in pixels.
    """

    @property
    def size(self) -> int: ...  # noqa: D102

    def of_picture(self, picture: Image.Image) -> Tensor:
        """The square (3, size, size) in [0, 1], exactly as published."""
        ...

    def of_tensor(self, images: Images) -> Tensor:
        """The squares (N, 3, size, size) of pictures (N, 3, H, W), with gradients."""
        ...


@dataclass(frozen=True)
class CentreCrop:
    """The shorter side is brought to `size` (bicubic, antialiased) and the middle is cut out of the longer one.

    Attributes:
        size: edge of the square in pixels.
        odd: where the crop begins when the pixels left over are odd in number: half of them "rounded" to the even
            number (torchvision) or "floored" (transformers).
    """

    size: int
    odd: Literal["rounded", "floored"] = "rounded"

    def of_picture(self, picture: Image.Image) -> Tensor:
        """The square (3, size, size) in [0, 1]; the picture becomes RGB first, without its transparency."""
        width, height = picture.size
        new_height, new_width = self._resized(height, width)
        resized = picture.convert("RGB").resize((new_width, new_height), Image.Resampling.BICUBIC)
        top, left = self._start(new_height), self._start(new_width)
        return to_tensor(resized.crop((left, top, left + self.size, top + self.size)))

    def of_tensor(self, images: Images) -> Tensor:
        """The squares (N, 3, size, size) of pictures (N, 3, H, W), with gradients."""
        height, width = self._resized(*images.shape[-2:])
        if (height, width) != images.shape[-2:]:
            images = resized(images, height, width)
        top, left = self._start(height), self._start(width)
        return images[..., top : top + self.size, left : left + self.size]

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        short = min(height, width)
        return int(self.size * height / short), int(self.size * width / short)

    def _start(self, side: int) -> int:
        left_over = side - self.size
        return round(left_over / 2) if self.odd == "rounded" else left_over // 2


@dataclass(frozen=True)
class Letterbox:
    """The longer side is brought to `size` (bicubic), the picture lies in the middle of black.

    The published code resizes tensors, so that the exact view and the one with gradients are one computation. The
    overshoot of the bicubic kernel is kept, as it is there.

    Attributes:
        size: edge of the square in pixels.
        antialias: whether the kernel widens for shrinking: what the published code does with torchvision 0.17 and
            later; before that it did not.
    """

    size: int
    antialias: bool = True

    def of_picture(self, picture: Image.Image) -> Tensor:
        """The square (3, size, size); the picture becomes RGB first, without its transparency."""
        return self.of_tensor(to_tensor(picture.convert("RGB"))[None])[0]

    def of_tensor(self, images: Images) -> Tensor:
        """The squares (N, 3, size, size) of pictures (N, 3, H, W), with gradients."""
        scale = self.size / max(images.shape[-2:])
        height, width = (max(1, round(side * scale)) for side in images.shape[-2:])
        if (height, width) != images.shape[-2:]:
            images = functional.interpolate(images, (height, width), mode="bicubic", antialias=self.antialias)
        down, right = self.size - height, self.size - width
        return functional.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))


@dataclass(frozen=True)
class Square:
    """The whole picture, padded to a square with one colour, then resized to `size` (bicubic, antialiased).

    Attributes:
        size: edge of the square in pixels.
        colour: of the margins, in bytes.
    """

    size: int
    colour: tuple[int, int, int]

    def of_picture(self, picture: Image.Image) -> Tensor:
        """The square (3, size, size) in [0, 1]; the picture becomes RGB first, without its transparency."""
        picture = picture.convert("RGB")
        side = max(picture.size)
        square = Image.new("RGB", (side, side), self.colour)
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        return to_tensor(square.resize((self.size, self.size), Image.Resampling.BICUBIC))

    def of_tensor(self, images: Images) -> Tensor:
        """The squares (N, 3, size, size) of pictures (N, 3, H, W), with gradients."""
        height, width = images.shape[-2:]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        colour = images.new_tensor(self.colour)[:, None, None] / 255
        square = functional.pad(images - colour, (left, side - width - left, top, side - height - top)) + colour
        return square if side == self.size else resized(square, self.size, self.size)


def to_tensor(picture: Image.Image) -> Tensor:
    """An RGB picture as (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(picture, np.uint8)).permute(2, 0, 1).float() / 255


def resized(images: Images, height: int, width: int, kernel: Literal["bicubic", "bilinear"] = "bicubic") -> Images:
    """Pictures (N, 3, H, W) in another size, with gradients: along the rows first and clamped twice, as PIL does it."""
    for size in ((images.shape[-2], width), (height, width)):
        images = functional.interpolate(images, size, mode=kernel, antialias=True).clamp(0, 1)
    return images
