"""Pictures with what the verifier found in them, and the labels of their patches."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from reward_model import CELLS
from torch import Tensor

from rewards.shapes.captions import COLORS, SHAPES
from rewards.shapes.detector import BLOB, Detected


class Labels(NamedTuple):
    """What stands at each of the 64 patches of B pictures.

    Attributes:
        shape: (B, 64) 0..6, 7 for nothing.
        color: (B, 64) 0..7, 8 for nothing.
        centre: (B, 64) 1 where an object has its centre, else 0.
        offset: (B, 64, 2) to the centre of the object there, in units of 16 pixels.
    """

    shape: Tensor
    color: Tensor
    centre: Tensor
    offset: Tensor


class Pool:
    """Pictures and what the verifier found in them, in memory."""

    def __init__(self, images: NDArray[np.uint8], objects: NDArray[np.float32]) -> None:
        """Images (N, 64, 64, 3) and their object tables (N, 8, 5)."""
        self.images, self.objects = images, objects

    @classmethod
    def read(cls, paths: Iterable[Path]) -> "Pool":
        """All shards in order."""
        shards = [np.load(path) for path in sorted(paths)]
        return cls(*(np.concatenate([shard[name] for shard in shards]) for name in ("images", "objects")))

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.images)

    def __add__(self, other: "Pool") -> "Pool":
        """The pictures of both."""
        return Pool(np.concatenate([self.images, other.images]), np.concatenate([self.objects, other.objects]))

    def pixels(self, rows: Sequence[int], rng: Random | None = None) -> Tensor:
        """(B, 3, 64, 64) in [-1, 1]; with `rng` also a little brightness, contrast and noise."""
        pixels = torch.from_numpy(self.images[list(rows)]).permute(0, 3, 1, 2).float() / 127.5 - 1
        if rng is None:
            return pixels
        generator = torch.Generator().manual_seed(rng.getrandbits(31))
        gain = 1 + 0.06 * (torch.rand(len(pixels), 1, 1, 1, generator=generator) - 0.5)
        grain = 0.06 * torch.rand(len(pixels), 1, 1, 1, generator=generator).square()
        return pixels * gain + grain * torch.randn(pixels.shape, generator=generator)

    def detected(self, row: int) -> tuple[Detected, ...]:
        """The objects in a picture as the verifier saw them."""
        return as_detected(self.objects[row])


def as_detected(table: NDArray[np.float32]) -> tuple[Detected, ...]:
    """Rows of `reward_pool.table` as components."""
    names = (*SHAPES, BLOB)
    return tuple(
        Detected(names[int(shape)], COLORS[int(color)], x, y, int(area), 1.0)
        for shape, color, x, y, area in table.tolist()
        if shape >= 0
    )


def patch_labels(objects: NDArray[np.float32]) -> Labels:
    """What stands at each patch, from object tables (B, 8, 5)."""
    table = torch.from_numpy(objects)
    cover = cells_of(table)  # (B, 8, 64)
    first = cover.float().argmax(1)  # (B, 64) the object at each patch
    something = cover.any(1)
    pick = lambda column: table[..., column].gather(1, first)  # noqa: E731
    shape = torch.where(something, pick(0), 7.0).long()
    color = torch.where(something, pick(1), 8.0).long()
    offset = torch.stack([pick(2), pick(3)], -1) - _CENTRES
    home = ((table[..., 3] + 0.5) // 8 * 8 + (table[..., 2] + 0.5) // 8).long().clamp(0, 63)
    centre = torch.zeros(len(table), CELLS).scatter_add(1, home, (table[..., 0] >= 0).float()).clamp(max=1)
    return Labels(shape, color, centre, offset / 16)


def cells_of(table: Tensor) -> Tensor:
    """Which cells each object covers, bool (..., 64): those whose middle lies in a disc of its area, and its home."""
    away = (table[..., None, 2:4] - _CENTRES).square().sum(-1)  # (..., 64)
    reach = (table[..., None, 4].clamp(min=0) / np.pi) * 1.2
    home = (table[..., None, 2:4] - _CENTRES).abs().amax(-1) <= 4
    return ((away < reach) | home) & (table[..., None, 0] >= 0)


_CENTRES = (
    torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="xy"), -1).reshape(CELLS, 2) * 8 + 3.5
)
