"""From bytes to the numbers that a vision tower was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewards.llava.soft import AnyImage, SoftImage

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Normalise:
    """(pixels / 255 − mean) / std, per channel."""

    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD

    def __call__(self, image: AnyImage) -> Tensor:
        """An RGB picture as (3, H, W) float32."""
        if isinstance(image, SoftImage):
            middle, spread = (image.pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
            return (image.pixels - middle) / spread
        pixels, table = np.array(image, np.uint8), _table(tuple(self.mean), tuple(self.std))
        numbers = np.empty(pixels.shape, np.float32)  # (H, W, 3)
        for channel, values in enumerate(table):
            values.take(pixels[..., channel], out=numbers[..., channel])
        return torch.from_numpy(numbers).permute(2, 0, 1)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Normalise":
        """As a preprocessor_config.json has it; CLIP's values where it has none."""
        return cls(tuple(settings.get("image_mean", CLIP_MEAN)), tuple(settings.get("image_std", CLIP_STD)))


@lru_cache(maxsize=8)
def _table(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """What each of the 256 values of a byte becomes in each channel, (3, 256): far fewer divisions than pixels."""
    middle, spread = (torch.tensor(values)[:, None] for values in (mean, std))
    numbers: NDArray[np.float32] = ((torch.arange(256.0) / 255 - middle) / spread).numpy()
    return numbers


def tiles(pixels: Tensor, edge: int) -> Tensor:
    """Pixels (3, H, W), multiples of `edge`, as square tiles (H W / edge², 3, edge, edge), row by row."""
    high, wide = (side // edge for side in pixels.shape[1:])
    return pixels.reshape(3, high, edge, wide, edge).permute(1, 3, 0, 2, 4).flatten(0, 1)
