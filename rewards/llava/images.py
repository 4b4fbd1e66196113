"""Pictures as the vision tower takes them; the arithmetic of CLIP's image processor on tensors, with gradients."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from rewards.base import Images


@dataclass(frozen=True)
class ImageSettings:
    """How pictures are prepared.

    Attributes:
        size: height and width that the vision tower takes, in pixels.
        mean, std: of each channel, for values in [0, 1].
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def preprocess(images: Images, settings: ImageSettings) -> Tensor:
    """Pixel values (N, 3, size, size) of pictures (N, 3, H, W) in [0, 1].

    The shorter side is brought to `size` (bicubic, antialiased), the middle is cut out of the longer one, and the
    channels are normalised.
    """
    height, width = images.shape[-2:]
    if (height, width) != (settings.size, settings.size):
        scale = settings.size / min(height, width)
        shape = [max(settings.size, round(side * scale)) for side in (height, width)]
        images = functional.interpolate(images, shape, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((side - settings.size) // 2 for side in shape)
        images = images[..., top : top + settings.size, left : left + settings.size]
    mean, std = (images.new_tensor(values)[:, None, None] for values in (settings.mean, settings.std))
    return (images - mean) / std
