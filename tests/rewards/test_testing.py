"""check_reward finds what it promises to find: rewards that break one clause each."""

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from rewards import load_reward
from rewards.base import ImagesLike, as_images, check_prompts
from rewards.testing import check_reward


class Broken:
    """Mean of the pixels, spoilt by `spoil`."""

    name = "broken"
    absolute = True

    def __init__(self, spoil: Callable[[Tensor], Tensor], *, checks: bool = True) -> None:
        self._spoil, self._checks = spoil, checks

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Tensor:
        pixels = as_images(images) if self._checks else torch.as_tensor(images)
        if self._checks:
            check_prompts(pixels, prompts)
        return self._spoil(pixels.detach().mean((1, 2, 3)))


_calls = itertools.count()


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        (Broken(lambda scores: scores - scores.mean()), "one by one"),
        (Broken(lambda scores: scores + torch.arange(len(scores))), "in reversed order"),
        (Broken(lambda scores: scores + next(_calls)), "twice the same input"),
        (Broken(lambda scores: scores.double()), "dtype"),
        (Broken(lambda scores: scores[:, None]), "shape"),
        (Broken(lambda scores: scores / 0), "not finite"),
        (Broken(lambda scores: scores.clone().requires_grad_()), "keep a gradient"),
    ],
)
def test_each_broken_clause_is_named(reward: Broken, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_reward(reward)


def test_a_reward_that_checks_nothing_is_found() -> None:
    class Careless(Broken):
        def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Tensor:
            pixels = as_images(images) if not isinstance(images, Tensor) else images
            return pixels.detach().reshape(len(pixels), -1).mean(1)

    with pytest.raises(AssertionError, match="accepted fewer prompts than images"):
        check_reward(Careless(lambda scores: scores))


def test_a_missing_gradient_is_found() -> None:
    with pytest.raises(AssertionError, match="carry none"):
        check_reward(Broken(lambda scores: scores), differentiable=True)


def test_the_verifier_keeps_the_contract() -> None:
    check_reward(load_reward("shapes"))
