"""A plain function as a reward."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rewards.base import Images, ImagesLike, Scores, as_images, check_prompts, check_scores

Score: TypeAlias = Callable[[Images, Sequence[str]], Scores]


@dataclass(frozen=True)
class FunctionReward:
    """A plain function (images, prompts) -> (N,) tensor as a reward, whatever its arguments are called.

    Attributes:
        function: Called with pictures (N, 3, H, W) in [0, 1] and one prompt for each.
        name: Where it is found.
    """

    function: Score
    name: str
    absolute = True

    @property
    def differentiable(self) -> bool:
        """Whether gradients reach the pictures: what the function says of itself by an attribute of this name."""
        return getattr(self.function, "differentiable", False) is True

    @property
    def revision(self) -> str:
        """What the function says of itself by an attribute of this name; caches tell its versions apart by it."""
        return str(getattr(self.function, "revision", ""))

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores of N pictures, (N,)."""
        pictures = as_images(images)
        check_prompts(pictures, prompts)
        return check_scores(self.function(pictures, prompts), self.name, len(prompts))
