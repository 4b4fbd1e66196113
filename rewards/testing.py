"""The contract of a reward as one call, for authors of rewards.

    from rewards.testing import check_reward
    check_reward(MyReward())

It asserts that a batch scores as its members one by one, that order is kept, that scores are finite float32 and the
same twice, that the three forms of pictures agree, that pictures of other modes score as their RGB, that very small and
very long ones have a score or are refused, that no gradient is kept unless asked for, and that wrong input is refused.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rewards.base import ImagesLike, Reward
from rewards.errors import RewardError

PROMPTS = (
    "a red circle",
    "a blue square and a green star",
    "three pink hearts",
    "a cyan cross above a purple triangle",
)


def check_reward(
    reward: Reward,
    *,
    prompts: Sequence[str] = PROMPTS,
    size: int = 64,
    tolerance: float = 1e-4,
    differentiable: bool | None = None,
    seed: int = 0,
) -> None:
    """Assert the contract of `reward` on random pictures.

    Args:
        reward: what to check.
        prompts: at least two, one for each picture.
        size: height and width of the pictures.
        tolerance: how far the score of a picture may move with its companions or its dtype, absolute and relative.
        differentiable: whether scores of images that require a gradient must carry one; None: they may.
        seed: of the pictures.

    Raises:
        AssertionError: a broken clause, named.
    """
    images = _pictures(len(prompts), size, seed)
    scores = reward(images, prompts)
    _check_form(reward, scores, len(prompts))
    _check_companions(reward, images, prompts, scores, tolerance)
    if not reward.absolute:
        _check_errors(reward, images, prompts)
        return
    _check_forms_of_pictures(reward, images, prompts, tolerance)
    _check_odd_pictures(reward, images, prompts, tolerance)
    _check_gradient(reward, images, prompts, differentiable=differentiable)
    _check_errors(reward, images, prompts)


def _pictures(count: int, size: int, seed: int) -> Tensor:
    """Smooth random pictures whose values are whole bytes, (count, 3, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return (smooth * 255).round() / 255


def _check_form(reward: Reward, scores: Tensor, count: int) -> None:
    name = getattr(reward, "name", None)
    assert isinstance(name, str), "name is not a string"
    assert name, "name is empty"
    assert isinstance(reward.absolute, bool), f"{name}: absolute is not a bool"
    assert isinstance(scores, Tensor), f"{name}: scores are a {type(scores).__name__}, not a tensor"
    assert scores.shape == (count,), f"{name}: scores of shape {tuple(scores.shape)}, expected ({count},)"
    assert scores.dtype == torch.float32, f"{name}: scores of dtype {scores.dtype}, expected float32"
    assert bool(scores.isfinite().all()), f"{name}: scores are not finite: {scores.tolist()}"
    assert not scores.requires_grad, f"{name}: scores keep a gradient that nobody asked for"


def _check_companions(reward: Reward, images: Tensor, prompts: Sequence[str], scores: Tensor, tolerance: float) -> None:
    again = reward(images, prompts)
    assert torch.equal(scores, again), (
        f"{reward.name}: twice the same input gave {scores.tolist()} and {again.tolist()}"
    )
    backwards = reward(images.flip(0), list(prompts)[::-1]).flip(0)
    _assert_close(reward, "in reversed order", backwards, scores, tolerance)
    if reward.absolute:
        alone = torch.cat([reward(image[None], [prompt]) for image, prompt in zip(images, prompts, strict=True)])
        _assert_close(reward, "one by one", alone, scores, tolerance)


def _check_forms_of_pictures(reward: Reward, images: Tensor, prompts: Sequence[str], tolerance: float) -> None:
    array = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    expected = reward(images, prompts)
    _assert_close(reward, "as uint8 array", reward(array, prompts), expected, tolerance)
    pictures = [Image.fromarray(np.asarray(picture)) for picture in array]
    _assert_close(reward, "as PIL images", reward(pictures, prompts), expected, tolerance)


def _check_odd_pictures(reward: Reward, images: Tensor, prompts: Sequence[str], tolerance: float) -> None:
    array = (images[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture, prompt = Image.fromarray(np.ascontiguousarray(array)), prompts[0]
    for mode in ("L", "LA", "P", "RGBA"):
        odd = picture.convert(mode)  # opaque: what shines through elsewhere is the reward's own choice
        expected = reward([odd.convert("RGB")], [prompt])
        _assert_close(reward, f"of mode {mode} instead of its RGB", reward([odd], [prompt]), expected, tolerance)
    for size in ((1, 1), (4000, 10)):
        try:
            scores = reward([picture.resize(size)], [prompt])
        except RewardError:
            continue
        assert bool(scores.isfinite().all()), f"{reward.name}: of {size[0]} x {size[1]} pixels: {scores.tolist()}"


def _check_gradient(reward: Reward, images: Tensor, prompts: Sequence[str], *, differentiable: bool | None) -> None:
    leaf = images.clone().requires_grad_()
    scores = reward(leaf, prompts)
    assert differentiable in (None, scores.requires_grad), (
        f"{reward.name}: scores of images that require a gradient "
        f"{'carry none' if differentiable else 'carry one, but the reward is declared not differentiable'}"
    )
    if scores.requires_grad:
        (gradient,) = torch.autograd.grad(scores.sum(), leaf)
        assert bool(gradient.isfinite().all()), f"{reward.name}: the gradient is not finite"
        assert bool((gradient != 0).any()), f"{reward.name}: the gradient is zero everywhere"


def _check_errors(reward: Reward, images: Tensor, prompts: Sequence[str]) -> None:
    wrong: dict[str, tuple[ImagesLike, Sequence[str]]] = {
        "no pictures": ([], []),
        "fewer prompts than images": (images, list(prompts)[:-1]),
        "values outside [0, 1]": (images * 2 - 1, prompts),
        "one channel": (images[:, :1], prompts),
        "one picture without its batch axis": (images[0], prompts),
    }
    for what, (pictures, texts) in wrong.items():
        try:
            reward(pictures, texts)
        except RewardError:
            continue
        raise AssertionError(f"{reward.name}: accepted {what}; expected a RewardError")


def _assert_close(reward: Reward, how: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    close = torch.allclose(actual, expected, rtol=tolerance, atol=tolerance)
    assert close, f"{reward.name}: {how}: got {actual.tolist()}, expected {expected.tolist()} within {tolerance}"
