"""LLaVA-v1.6's pictures of any resolution: the whole picture, and tiles of the best-fitting grid.

Reference: LLaVA-NeXT (Liu et al., 2024); the numbers are those of the image processor of
transformers 4.50, which the published code uses.
"""

import math
from collections.abc import Sequence

import torch
from PIL import Image

from rewards.llava.backbone import Picture
from rewards.llava.normalise import Normalise
from rewards.llava.soft import AnyImage, framed

Size = tuple[int, int]  # (height, width)


def best_resolution(size: Size, resolutions: Sequence[Sequence[int]]) -> Size:
    """The resolution that keeps most of a picture's pixels, and among those wastes least; all as (height, width)."""

    def kept(resolution: Sequence[int]) -> tuple[int, int]:
        high, wide = resolution
        scale = min(wide / size[1], high / size[0])
        pixels = min(int(size[1] * scale) * int(size[0] * scale), size[0] * size[1])
        return pixels, pixels - high * wide

    high, wide = max(resolutions, key=kept)
    return high, wide


def fitted(size: Size, into: Size) -> Size:
    """Largest size of the same shape inside `into`, sides rounded up."""
    scales = into[0] / size[0], into[1] / size[1]
    if scales[1] < scales[0]:
        return min(math.ceil(size[0] * scales[1]), into[0]), into[1]
    return into[0], min(math.ceil(size[1] * scales[0]), into[1])


def anyres(image: AnyImage, *, tile: int, resolutions: Sequence[Sequence[int]], normalise: Normalise) -> Picture:
    """The whole picture squeezed into one tile, then the tiles of the best resolution, row by row, black around.

    Args:
        image: any mode; an alpha channel is dropped.
        tile: edge in pixels.
        resolutions: (height, width) to choose from, multiples of `tile`.
        normalise: mean and deviation.
    """
    image = image.convert("RGB")
    size = image.height, image.width
    best = best_resolution(size, resolutions)
    canvas = _framed(image, fitted(size, best), best)
    corners = ((left, top) for top in range(0, best[0], tile) for left in range(0, best[1], tile))
    parts = [_squared(canvas.crop(_box(corner, tile, canvas)), tile) for corner in corners]
    whole = image.resize((tile, tile), Image.Resampling.BICUBIC)
    return Picture(torch.stack([normalise(part) for part in (whole, *parts)]), size)


def _framed(image: AnyImage, size: Size, best: Size) -> AnyImage:
    """The picture at `size` with margins that bring it to `best`, one pixel short where they are odd.

    The processor that LLaVA-Reward was trained with rounds both margins down.
    """
    top, left = ((full - side) // 2 for full, side in zip(best, size, strict=True))
    resized = image.resize(size[::-1], Image.Resampling.BICUBIC)
    return framed(resized, (size[1] + 2 * left, size[0] + 2 * top), (left, top), 0)


def _box(corner: tuple[int, int], tile: int, canvas: AnyImage) -> tuple[int, int, int, int]:
    left, top = corner
    return left, top, min(left + tile, canvas.width), min(top + tile, canvas.height)


def _squared(part: AnyImage, tile: int) -> AnyImage:
    """A tile that is one pixel short, enlarged to fit and cut, as that processor does."""
    short = min(part.size)
    if part.size == (tile, tile):
        return part
    wide, high = (int(tile * side / short) for side in part.size)
    left, top = (wide - tile) // 2, (high - tile) // 2
    return part.resize((wide, high), Image.Resampling.BICUBIC).crop((left, top, left + tile, top + tile))


def unpadded(size: Size, grid: Size) -> tuple[slice, slice]:
    """Rows and columns of a `grid` of patches that a picture of `size` covers, without the black around it."""
    if size[1] / size[0] > grid[1] / grid[0]:
        high = int(round(size[0] * (grid[1] / size[1]), 7))
        margin = (grid[0] - high) // 2
        return slice(margin, grid[0] - margin), slice(None)
    wide = int(round(size[1] * (grid[0] / size[0]), 7))
    margin = (grid[1] - wide) // 2
    return slice(None), slice(margin, grid[1] - margin)


def visual_count(size: Size, *, side: int, tile: int, resolutions: Sequence[Sequence[int]]) -> int:
    """Number of visual tokens V of a picture of `size` pixels, with `side` patches along a tile's edge."""
    best = best_resolution(size, resolutions)
    grid = best[0] // tile * side, best[1] // tile * side
    high, wide = (len(range(count)[part]) for count, part in zip(grid, unpadded(size, grid), strict=True))
    return side * side + high * (wide + 1)
