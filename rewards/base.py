"""The one interface of all rewards: images and prompts become numbers, higher is better.

Pictures are converted once, at the boundary, by `as_images`; behind it every reward sees one form only. Scores are
checked once by `check_scores`, so that a NaN is an error with a name instead of a winner.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rewards.errors import ImageError, RewardError, ScoreError

Images: TypeAlias = Tensor  # (N, 3, H, W) floating point in [0, 1]
Scores: TypeAlias = Tensor  # (N,) float32, higher is better
ImagesLike: TypeAlias = Images | Sequence[Image.Image] | NDArray[np.uint8]

_SLACK = 1e-3  # how far a decoder's rounding may leave [0, 1]


@runtime_checkable
class Reward(Protocol):
    """Scores pictures against prompts.

    Attributes:
        name: what `load_reward` calls it.
        absolute: False where a score depends on the other candidates (pairwise heads); such scores rank one set of
            candidates and cannot be compared over time.

    A reward that cannot judge every prompt may have a method `check_prompt(prompt)` that raises `RewardError`; it is
    asked before a picture is made, also within combinations and caches, see `rewards.combine.check_prompt`.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def absolute(self) -> bool: ...  # noqa: D102

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores of N pictures, (N,) float32; `images` is all that `as_images` takes, with one prompt for each."""
        ...


def as_images(images: ImagesLike) -> Images:
    """Pictures in the one form that rewards work on, (N, 3, H, W) in [0, 1].

    Args:
        images: such a tensor (returned as it is, gradient included), a list of PIL images of one size, or an
            (N, H, W, 3) uint8 array. Of PIL images greyscale and palette become RGB, transparency is dropped, 16 bits
            become 8, and of an animation it is the frame that it stands at.

    Raises:
        ImageError: another type, shape, dtype or range, no picture at all, or one that cannot be decoded.
    """
    if isinstance(images, Tensor):
        return _checked(images)
    if isinstance(images, np.ndarray):
        return _from_array(images)
    if isinstance(images, Sequence) and images and all(isinstance(image, Image.Image) for image in images):
        return _from_pil(images)
    what = f"images of type {type(images).__name__}" if images else "no images"
    raise ImageError(
        f"Got {what}; expected a tensor (N, 3, H, W) in [0, 1], a list of at least one PIL image, or an "
        "(N, H, W, 3) uint8 array."
    )


def check_prompts(images: ImagesLike, prompts: Sequence[str]) -> None:
    """Raise `RewardError` unless there is one prompt, a string, for each image."""
    if isinstance(prompts, str):
        raise RewardError(f"Got one string as prompts; expected a sequence: write [{prompts!r}] * {len(images)}.")
    if len(prompts) != len(images):
        raise RewardError(f"Got {len(images)} images and {len(prompts)} prompts; expected one prompt for each image.")


def as_scores(scores: object, reward: str, count: int) -> Scores:
    """What a reward gave as (count,) float32, finite or not.

    Raises:
        ScoreError: not a tensor, or of another shape.
    """
    if not isinstance(scores, Tensor):
        raise ScoreError(f"Reward {reward!r} gave a {type(scores).__name__} as scores; expected a tensor ({count},).")
    if scores.shape != (count,):
        raise ScoreError(
            f"Reward {reward!r} gave scores of shape {tuple(scores.shape)} for {count} images; expected ({count},)."
        )
    return scores.to(torch.float32)


def check_scores(scores: object, reward: str, count: int) -> Scores:
    """What a reward gave as (count,) float32, all finite.

    Raises:
        ScoreError: another shape, or a value that is not finite; the message names the reward and the candidate.
    """
    checked = as_scores(scores, reward, count)
    broken = (~checked.isfinite()).nonzero().flatten().tolist()
    if broken:
        raise ScoreError(
            f"Reward {reward!r} gave {checked[broken[0]].item()} for candidate {broken[0]} ({len(broken)} of {count} "
            "candidates are not finite); look at that picture, or run the reward in float32."
        )
    return checked


def _checked(images: Tensor) -> Images:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ImageError(
            f"Got images of shape {tuple(images.shape)}; expected (N, 3, H, W), for one picture image[None]."
        )
    if not images.is_floating_point():
        raise ImageError(f"Got images of dtype {images.dtype}; expected floating point in [0, 1]: divide bytes by 255.")
    if not images.numel():
        raise ImageError(f"Got images of shape {tuple(images.shape)}, which is empty; expected at least one picture.")
    low, high = (value.item() for value in images.detach().aminmax())
    if not (low >= -_SLACK and high <= 1 + _SLACK):  # written so that NaN is refused too
        raise ImageError(
            f"Got images with values from {low:.3g} to {high:.3g}; expected [0, 1]: for [-1, 1] use images / 2 + 0.5."
        )
    return images


def _from_array(images: NDArray[np.uint8]) -> Images:
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not images.size:
        raise ImageError(
            f"Got an array of shape {images.shape} and dtype {images.dtype}; expected (N, H, W, 3) uint8, N at least 1."
        )
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(torch.float32) / 255


def _from_pil(images: Sequence[Image.Image]) -> Images:
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        raise ImageError(
            f"Got PIL images of sizes {sorted(sizes)}; expected one size: resize them or score them apart."
        )
    return _from_array(
        np.stack([np.asarray(decoded(image, k).convert("RGB"), np.uint8) for k, image in enumerate(images)])
    )


def decoded(image: Image.Image, number: int) -> Image.Image:
    """A picture that PIL turns into RGB as one expects: read from its file, grey of 16 bits brought to 8.

    Raises:
        ImageError: it cannot be decoded, or has floating-point values; `number` says which one it is.
    """
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:  # PIL has no error of its own for a damaged file
        raise ImageError(f"Picture {number} cannot be decoded: {error}; expected a whole file of a picture.") from error
    if image.mode == "F":
        raise ImageError(f"Got picture {number} in floating-point values; expected 8 bits: convert it to RGB.")
    if image.mode.startswith("I"):  # PIL itself would cut off all above 255
        return Image.fromarray((np.asarray(image, np.int64).clip(0, 65535) / 257).round().astype(np.uint8))
    return image
