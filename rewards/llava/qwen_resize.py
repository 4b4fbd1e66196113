"""Qwen2.5-VL's pictures: resized twice, once by its vision utilities and once by its processor, then cut into patches.

The numbers are those of the PIL image processor of transformers 4.50, which the published code uses.
"""

import math

from PIL import Image
from torch import Tensor

from rewards.errors import ImageError
from rewards.llava.backbone import Picture
from rewards.llava.normalise import Normalise
from rewards.llava.soft import AnyImage, SoftImage

PATCH, MERGE, TIME = 14, 2, 2
FACTOR = PATCH * MERGE
FIRST_LIMITS = (4 * FACTOR**2, 16384 * FACTOR**2)  # pixels, of the vision utilities
LIMITS = (56 * 56, 28 * 28 * 1280)  # pixels, of a processor whose settings name none


def smart_size(height: int, width: int, limits: tuple[int, int], factor: int = FACTOR) -> tuple[int, int]:
    """(height, width) in multiples of `factor`, near the picture's own shape, with an area within `limits`.

    Raises:
        ImageError: one side is more than 200 times the other.
    """
    if max(height, width) > 200 * min(height, width):
        raise ImageError(f"Got a picture of {width} x {height} pixels; expected one side at most 200 times the other.")
    high, wide = (max(factor, round(side / factor) * factor) for side in (height, width))
    if high * wide > limits[1]:
        shrink = math.sqrt(height * width / limits[1])
        return tuple(max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))  # type: ignore[return-value]
    if high * wide < limits[0]:
        grow = math.sqrt(limits[0] / (height * width))
        return tuple(math.ceil(side * grow / factor) * factor for side in (height, width))  # type: ignore[return-value]
    return high, wide


def qwen_picture(image: AnyImage, *, limits: tuple[int, int] = LIMITS, normalise: Normalise | None = None) -> Picture:
    """The picture as patches, cell by cell of 2 x 2.

    Args:
        image: any mode; transparent pictures are laid on white.
        limits: smallest and largest area in pixels after the second resize.
        normalise: mean and deviation, CLIP's by default.
    """
    image = image if isinstance(image, SoftImage) else flat(image)
    for bounds in (FIRST_LIMITS, limits):
        high, wide = smart_size(image.height, image.width, bounds)
        image = image.resize((wide, high), Image.Resampling.BICUBIC)
    pixels = (normalise or Normalise())(image)
    return Picture(patches(pixels), (image.height // PATCH, image.width // PATCH))


def flat(image: Image.Image) -> Image.Image:
    """The picture in RGB, laid on white if it is transparent."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white


def patches(pixels: Tensor, patch: int = PATCH) -> Tensor:
    """(3, H, W) as (P, 3 · 2 · patch²): the picture twice in time, patches of each 2 x 2 cell together."""
    high, wide = (side // (patch * MERGE) for side in pixels.shape[1:])
    cut = pixels.reshape(3, 1, high, MERGE, patch, wide, MERGE, patch).expand(-1, TIME, -1, -1, -1, -1, -1, -1)
    cells = cut.permute(2, 5, 3, 6, 0, 1, 4, 7)  # (h, w, 2, 2, 3, 2, patch, patch)
    return cells.flatten(4).flatten(0, 3)
