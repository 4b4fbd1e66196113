"""The exact verifier as a reward: `load_reward("shapes")`.

Pass or fail decides first, the soft score orders the rest: a picture that passes scores 1 + q, one that fails scores q,
where q in [0, 1) grows with the share of the sentence that is right.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rewards.base import ImagesLike, Scores, as_images, check_prompts
from rewards.errors import ImageError
from rewards.shapes.captions import Spec, parse
from rewards.shapes.detector import Floats
from rewards.shapes.scenes import SIZE
from rewards.shapes.verifier import Verdict, verify_batch


class ShapesReward:
    """The exact verifier of the shapes world as a `Reward`; scores are float32 in [0, 2), a pass is 1 or more.

    Square pictures of another size than 64 are resized to 64 (antialiased bilinear); others are refused, since the
    verifier measures shapes.
    """

    name = "shapes"
    absolute = True

    @cached_property
    def revision(self) -> str:
        """Hash of the code of this package, for records and caches: there are no weights."""
        from rewards.fingerprints import fingerprint

        return fingerprint(sorted(Path(__file__).parent.glob("*.py")), "")

    def check_prompt(self, prompt: str) -> None:
        """Raise `UnknownPromptError` if the prompt is outside the grammar."""
        parse(prompt)

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores of N pictures against their prompts, (N,) float32.

        Raises:
            UnknownPromptError: a prompt outside the grammar.
            ImageError: pictures that are not square.
        """
        verdicts = self.verdicts(images, prompts)
        return torch.tensor([reward_of(verdict) for verdict in verdicts], dtype=torch.float32)

    def verdicts(self, images: ImagesLike, prompts: Sequence[str]) -> tuple[Verdict, ...]:
        """The verdicts behind the scores, with what was found and why a picture fails."""
        tensor = as_images(images)  # (N, 3, H, W)
        check_prompts(tensor, prompts)
        known: dict[str, Spec] = {prompt: parse(prompt) for prompt in dict.fromkeys(prompts)}
        return verify_batch(to_pixels(tensor), [known[prompt] for prompt in prompts])


def reward_of(verdict: Verdict) -> float:
    """1 + q for a pass, q for a fail, with q in [0, 1)."""
    return float(verdict.correct) + 0.999 * verdict.score


def to_pixels(images: Tensor) -> Floats:
    """Pictures as the verifier takes them: (N, 3, H, H) in [0, 1] to (N, 64, 64, 3).

    Raises:
        ImageError: the pictures are not square.
    """
    height, width = images.shape[-2:]
    if height != width:
        raise ImageError(
            f"The shapes reward measures shapes, so it needs square pictures; got {height} x {width}, expected "
            f"{SIZE} x {SIZE}. Make them with equal height and width, or crop them first."
        )
    images = images.detach().to("cpu", torch.float32)
    if height != SIZE:
        images = functional.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True).clamp(0, 1)
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
