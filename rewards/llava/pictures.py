"""Whatever a caller has as pictures, as PIL images of any mixture of sizes: the published checkpoints start there."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from rewards.base import ImagesLike, as_images, decoded


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
        whole = {id(image): decoded(image, number) for number, image in reversed(list(enumerate(images)))}
        return [whole[id(image)] for image in images]
    pixels = as_images(images)  # (N, 3, H, W)
    array = (pixels.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(np.ascontiguousarray(picture)) for picture in array]


def _are_pil(images: ImagesLike) -> bool:
    if isinstance(images, Tensor | np.ndarray) or not isinstance(images, Sequence) or not images:
        return False
    return all(isinstance(image, Image.Image) for image in images)
