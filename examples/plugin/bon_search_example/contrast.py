"""Contrast as a reward: the standard deviation of lightness.

References:
    Peli, "Contrast in complex images", Journal of the Optical Society of America A 7(10), 1990: RMS contrast.
"""

from collections.abc import Sequence

from rewards.base import ImagesLike, Scores, as_images, check_prompts, check_scores
from rewards.pixels import luma

TINY = 1e-12  # variance below which a picture counts as flat: the root has no slope at 0


class Contrast:
    """RMS contrast in [0, 0.5]; it does not look at the prompt."""

    name = "contrast"
    absolute = True  # a score does not depend on the other candidates
    differentiable = True  # gradients reach the pictures
    revision = "1"  # for records and caches; another number whenever the scores change

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores of N pictures, (N,) float32; the prompts are only counted.

        Raises:
            RewardError: Pictures of the wrong form, or not one prompt for each.
        """
        pixels = as_images(images)  # (N, 3, H, W) in [0, 1]
        check_prompts(pixels, prompts)
        variance = luma(pixels.float()).var((1, 2), correction=0)
        return check_scores(variance.clamp(min=TINY).sqrt(), self.name, len(pixels))
