"""Gradients through what happens to a picture before a vision tower sees it.

The published models take pictures of eight bits, resized by PIL. A `SoftImage` goes the same way, with the same sizes
and kernels, but in floating point.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from rewards.views import resized

_KERNELS: dict[Image.Resampling, Literal["bicubic", "bilinear"]] = {
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
}
AnyImage: TypeAlias = "Image.Image | SoftImage"


@dataclass(frozen=True)
class SoftImage:
    """A picture that is resized, cut and reflected as a PIL image in RGB is, but not rounded.

    Attributes:
        pixels: (3, H, W) in [0, 1].
    """

    pixels: Tensor

    @property
    def width(self) -> int:
        """In pixels."""
        return self.pixels.shape[2]

    @property
    def height(self) -> int:
        """In pixels."""
        return self.pixels.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    def convert(self, mode: str) -> "SoftImage":
        """Itself, which is in RGB."""
        assert mode == "RGB", mode
        return self

    def resize(self, size: tuple[int, int], resample: Image.Resampling) -> "SoftImage":
        """Resized to width and height."""
        if size == self.size:
            return self
        width, height = size
        return SoftImage(resized(self.pixels[None], height, width, _KERNELS[resample])[0])

    def crop(self, box: tuple[int, int, int, int]) -> "SoftImage":
        """The part between left, top, right and bottom."""
        left, top, right, bottom = box
        return SoftImage(self.pixels[:, top:bottom, left:right])

    def transpose(self, method: Image.Transpose) -> "SoftImage":
        """Reflected at the diagonal."""
        assert method == Image.Transpose.TRANSPOSE, method
        return SoftImage(self.pixels.mT)


def framed(image: AnyImage, size: tuple[int, int], corner: tuple[int, int], level: int) -> AnyImage:
    """A picture on a grey ground.

    Args:
        image: that fits there.
        size: width and height of the ground.
        corner: where its left upper corner comes.
        level: of the ground, 0 (black) to 255 (white).
    """
    left, top = corner
    if isinstance(image, Image.Image):
        ground = Image.new("RGB", size, (level, level, level))
        ground.paste(image, corner)
        return ground
    rest = size[0] - image.width - left, size[1] - image.height - top
    return SoftImage(F.pad(image.pixels, (left, rest[0], top, rest[1]), value=level / 255))
