"""Phi-3.5-vision's "HD" transform: a picture as up to `num_crops` crops of 336 pixels, and one view of the whole.

The numbers are those of the published processor, which works with torchvision on PIL images.
"""

import math

import torch
from PIL import Image
from torch.nn import functional as F

from rewards.errors import ImageError
from rewards.llava.backbone import Picture
from rewards.llava.normalise import Normalise, tiles
from rewards.llava.soft import AnyImage, framed

CROP = 336


def hd_size(width: int, height: int, num_crops: int) -> tuple[int, int, int]:
    """Resized width and height, and padded height, of a picture that is at least as wide as high."""
    ratio = width / height
    columns = 1
    while columns * math.ceil(columns / ratio) <= num_crops:
        columns += 1
    wide = (columns - 1) * CROP
    high = int(wide / ratio)
    return wide, high, math.ceil(high / CROP) * CROP


def hd_transform(image: AnyImage, *, num_crops: int, normalise: Normalise | None = None) -> Picture:
    """The whole picture (padded, squeezed square), then its crops row by row.

    A picture is enlarged until `num_crops` would be exceeded and padded with white above and below; one that is higher
    than wide is reflected at the diagonal for that and back again.

    Args:
        image: any mode; an alpha channel is dropped.
        num_crops: at most so many crops beside the whole; the published reward uses 16.
        normalise: mean and deviation, CLIP's by default.

    Raises:
        ImageError: one side is so much longer than the other that nothing would be left of the shorter one.
    """
    image = image.convert("RGB")
    upright = image.width < image.height
    if upright:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    wide, high, full = hd_size(image.width, image.height, num_crops)
    if not high:
        raise ImageError(
            f"Got a picture of {image.width} x {image.height} pixels, too thin for crops of {CROP}; cut it to a part."
        )
    resized = image.resize((wide, high), Image.Resampling.BILINEAR)
    canvas = framed(resized, (wide, full), (0, (full - high) // 2), 255)
    if upright:
        canvas = canvas.transpose(Image.Transpose.TRANSPOSE)
    pixels = (normalise or Normalise())(canvas)  # (3, H, W)
    whole = F.interpolate(pixels[None].float(), size=(CROP, CROP), mode="bicubic")
    return Picture(torch.cat([whole, tiles(pixels, CROP)]), (canvas.height, canvas.width))
