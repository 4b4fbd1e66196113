"""Whatever a caller has as pictures, as PIL images of any mixture of sizes: the published checkpoints start there."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from rewards.base import ImagesLike, as_images
from rewards.errors import ImageError


def as_pictures(images: ImagesLike) -> list[Image.Image]:
    """N pictures of eight bits per channel, in any mode that PIL turns into RGB.

    Of an animation the frame that it stands at, the first unless moved. Grey pictures of 16 bits are brought to 8.
    One and the same object given twice comes back as one and the same object.

    Args:
        images: PIL images of any sizes, or what `as_images` takes.

    Raises:
        ImageError: what `as_images` refuses, a picture that cannot be decoded, or one of floating-point values.
    """
    if _are_pil(images):
        decoded = {id(image): _decoded(image, number) for number, image in reversed(list(enumerate(images)))}
        return [decoded[id(image)] for image in images]
    pixels = as_images(images)  # (N, 3, H, W)
    array = (pixels.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(np.ascontiguousarray(picture)) for picture in array]


def _are_pil(images: ImagesLike) -> bool:
    if isinstance(images, Tensor | np.ndarray) or not isinstance(images, Sequence) or not images:
        return False
    return all(isinstance(image, Image.Image) for image in images)


def _decoded(image: Image.Image, number: int) -> Image.Image:
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:  # PIL has no error of its own for a damaged file
        raise ImageError(f"Picture {number} cannot be decoded: {error}; expected a whole file of a picture.") from error
    if image.mode == "F":
        raise ImageError(f"Got picture {number} in floating-point values; expected 8 bits: convert it to RGB.")
    if image.mode.startswith("I"):  # PIL itself would cut off all above 255
        return Image.fromarray((np.asarray(image, np.int64).clip(0, 65535) / 257).round().astype(np.uint8))
    return image
