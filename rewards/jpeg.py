"""How large a picture is as a JPEG: `jpeg:compressibility` and `jpeg:incompressibility`.

    size = bytes of the file that PIL writes in RGB at quality 95 with its other settings untouched, / 1000
    incompressibility = +size,   compressibility = −size      (kilobytes of 1000 bytes)

This is DDPO's definition, so the size grows with the number of pixels: compare pictures of one size only, or ask for
kilobytes per megapixel with `jpeg:compressibility(per_megapixel=true)`. The prompt is not looked at. Nothing is
downloaded. The size also depends on the JPEG library that PIL was built with, by a few bytes.

Reference: Black et al., Training diffusion models with reinforcement learning, ICLR 2024, section 5.1.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from rewards.base import ImagesLike, Scores, check_scores
from rewards.errors import RewardError
from rewards.llava.pictures import as_pictures
from rewards.nearest import check_variant
from rewards.vision import check_texts

QUALITY = 95
_SIGNS = {"compressibility": -1.0, "incompressibility": 1.0}


@dataclass(frozen=True)
class JpegReward:
    """The size of each picture as a JPEG; lists of PIL images may be of any mixture of sizes and modes.

    Attributes:
        name: "jpeg:compressibility" or "jpeg:incompressibility".
        sign: of the size, −1 or 1.
        quality: as PIL takes it, 1 to 95.
        per_megapixel: whether the size is divided by the number of pixels in millions.
    """

    name: str
    sign: float
    quality: int = QUALITY
    per_megapixel: bool = False
    absolute = True
    differentiable = False

    @property
    def revision(self) -> str:
        """The settings, for records and caches."""
        return f"quality {self.quality}{' per megapixel' if self.per_megapixel else ''}"

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Signed sizes of N pictures in kilobytes, (N,) float32; the prompts are only counted."""
        pictures = as_pictures(images)
        check_texts(prompts, len(pictures))
        scores = torch.tensor([self.sign * self._size(picture) for picture in pictures])
        return check_scores(scores, self.name, len(pictures))

    def _size(self, picture: Image.Image) -> float:
        kilobytes = jpeg_bytes(picture, self.quality) / 1000
        return kilobytes / (picture.width * picture.height / 1e6) if self.per_megapixel else kilobytes


def jpeg_bytes(picture: Image.Image, quality: int = QUALITY) -> int:
    """Length in bytes of the JPEG that PIL writes of a picture, turned into RGB first."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="JPEG", quality=quality)
    return buffer.tell()


def load_jpeg(variant: str = "compressibility", *, quality: int = QUALITY, per_megapixel: bool = False) -> JpegReward:
    """The JPEG reward of this name.

    Args:
        variant: "compressibility" (small files score high) or "incompressibility".
        quality: as PIL takes it, 1 to 95.
        per_megapixel: divide by the number of pixels in millions, so that sizes of pictures do not matter.

    Raises:
        RewardError: no such variant or quality.
    """
    check_variant("jpeg", variant, tuple(_SIGNS))
    if not (isinstance(quality, int) and 1 <= quality <= QUALITY):
        raise RewardError(f"Got quality {quality!r}; expected a whole number from 1 to {QUALITY}.")
    return JpegReward(f"jpeg:{variant}", _SIGNS[variant], quality, bool(per_megapixel))
