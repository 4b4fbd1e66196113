"""Pictures and prompts as rows, a few pictures at a time, prepared in threads while the model computes."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from rewards.llava.backbone import Inputs, Picture
from rewards.llava.batches import Row
from rewards.llava.soft import SoftImage

_WORKERS = 4


@dataclass(frozen=True)
class Window:
    """Some rows of a call, and their numbers in it."""

    numbers: list[int]
    rows: list[Row]


def prepared(
    inputs: Inputs, images: Sequence[Image.Image], prompts: Sequence[str], windows: Sequence[list[int]]
) -> Iterator[Window]:
    """Rows window by window; while one is scored, the next one's pictures are prepared.

    Args:
        inputs: prepares them.
        images: of all N rows; one object given twice is one picture.
        prompts: of all N rows.
        windows: the numbers of the rows that come together, from `by_picture` or `in_order`.
    """
    most = max(len({id(images[number]) for number in numbers}) for numbers in windows)
    with ThreadPoolExecutor(min(_WORKERS, most)) as pool:  # each thread costs memory of its own

        def submit(numbers: list[int]) -> dict[int, Future[Picture]]:
            distinct = {id(images[number]): images[number] for number in numbers}
            return {key: pool.submit(inputs.picture, image) for key, image in distinct.items()}

        ahead = submit(windows[0])
        for numbers, following in zip(windows, [*windows[1:], []], strict=True):
            pictures = {key: future.result() for key, future in ahead.items()}
            ahead = submit(following)
            seen = [(pictures[id(images[number])], prompts[number]) for number in numbers]
            yield Window(numbers, [Row(picture, inputs.ids(prompt, picture)) for picture, prompt in seen])


def with_gradient(inputs: Inputs, image: Image.Image, pixels: Tensor) -> Picture:
    """The picture that `inputs` make of `image`, with the gradient of what they make of the same in floating point.

    That is straight-through (Bengio et al., arXiv:1308.3432): a score is the same with and without a gradient.

    Args:
        inputs: of a backbone.
        image: in eight bits.
        pixels: (3, H, W) in [0, 1], which the gradient goes to.
    """
    exact, soft = inputs.picture(image), inputs.picture(SoftImage(pixels.float())).pixels
    return replace(exact, pixels=exact.pixels.to(soft.device) + (soft - soft.detach()))


def by_picture(images: Sequence[Image.Image], size: int) -> list[list[int]]:
    """Numbers of rows in windows with all rows of a few pictures.

    Args:
        images: of all rows.
        size: pictures in one pass; where it is more than one, a window has twice as many, to choose among.
    """
    of_picture: dict[int, list[int]] = {}
    for number, image in enumerate(images):
        of_picture.setdefault(id(image), []).append(number)
    rows, few = list(of_picture.values()), size * 2 if size > 1 else 1
    return [[number for part in rows[start : start + few] for number in part] for start in range(0, len(rows), few)]


def in_order(count: int, size: int) -> list[list[int]]:
    """Numbers of `count` rows, `size` by `size`."""
    numbers = list(range(count))
    return [numbers[start : start + size] for start in range(0, count, size)]


def reunited(windows: Sequence[list[int]], parts: Sequence[Tensor]) -> Tensor:
    """Outputs (N, d) in the order of the rows, from those of each window."""
    numbers = [number for window in windows for number in window]
    return torch.cat(list(parts))[torch.tensor(numbers).argsort()]
