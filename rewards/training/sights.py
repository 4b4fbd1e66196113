"""Pictures of the records as the model takes them: decoded ahead in threads, kept, and seen by a frozen tower once."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rewards.llava.backbone import Inputs, Picture
from rewards.llava.batches import Row
from rewards.training.checks import open_picture
from rewards.training.records import Side
from rewards.training.trainee import Trainee

_WORKERS = max(4, min(8, os.cpu_count() or 1))
_PICTURES = {"cpu": 1}  # in one pass of a frozen tower
_PICTURES_ELSEWHERE = 64
_VALUES = 64 * 3 * 336**2  # in one pass, unless one picture has more
_IDS = 1 << 24  # that are kept, 8 bytes each


class Look(NamedTuple):
    """A picture, and what a frozen tower gives for it; of a tower that is trained, its pixels."""

    picture: Picture
    features: Tensor


class Sights:
    """Rows of sides, and the tower's features of their pictures.

    A frozen tower sees pictures in passes of one size, whatever they come with, so that its features do not depend on
    what is kept already.

    Args:
        trainee: whose tower looks at them.
        inputs: prepare pictures and prompts.
        keep: bytes of features, or pixels where the tower is trained, that are kept on the model's device; those that
            came first, since every picture comes as often as any other.
    """

    def __init__(self, trainee: Trainee, inputs: Inputs, *, keep: int = 1 << 30) -> None:
        self._trainee, self._inputs = trainee, inputs
        self._frozen = not trainee.settings.tower
        self._room = keep
        self._kept: dict[Path, Look] = {}
        self._ids: dict[tuple[str, tuple[int, int]], list[int]] = {}
        self._ids_room = _IDS
        self._ahead: dict[Path, Future[Picture]] = {}
        self._pool = ThreadPoolExecutor(_WORKERS)

    def expect(self, sides: Iterable[Side]) -> None:
        """Begin to decode pictures that will be asked for next."""
        for side in sides:
            if side.image not in self._kept and side.image not in self._ahead:
                self._ahead[side.image] = self._pool.submit(self._decoded, side.image)

    def rows(self, sides: Sequence[Side]) -> tuple[list[Row], list[Tensor] | None]:
        """Rows of the sides, and the features of their pictures where the tower is frozen."""
        paths = list(dict.fromkeys(side.image for side in sides))
        self.expect(sides)
        looks = self._looks(paths)
        rows = [Row(looks[side.image].picture, self._tokens(side.prompt, looks[side.image].picture)) for side in sides]
        return rows, [looks[path].features for path in paths] if self._frozen else None

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _decoded(self, path: Path) -> Picture:
        return self._inputs.picture(open_picture(path))

    def _looks(self, paths: Sequence[Path]) -> dict[Path, Look]:
        known = {path: self._kept[path] for path in paths if path in self._kept}
        new = {path: self._ahead.pop(path).result() for path in paths if path not in known}
        looked = dict(zip(new, self._look(list(new.values())), strict=True))
        for path, look in looked.items():
            if look.features.nbytes <= self._room:
                self._room -= look.features.nbytes
                self._kept[path] = look
        return known | looked

    def _look(self, pictures: list[Picture]) -> list[Look]:
        if not self._frozen:
            there = (picture.pixels.to(self._trainee.device) for picture in pictures)
            return [Look(replace(one, pixels=pixels), pixels) for one, pixels in zip(pictures, there, strict=True)]
        seen: dict[int, Look] = {}
        for numbers in _alike(pictures, self._trainee.device):
            with torch.no_grad():
                features = self._trainee.features([pictures[number] for number in numbers])
            for number, given in zip(dict.fromkeys(numbers), features, strict=False):
                none = pictures[number].pixels[:0].clone()  # of a storage of its own, so that the pixels are freed
                seen[number] = Look(replace(pictures[number], pixels=none), given.clone())
        return [seen[number] for number in range(len(pictures))]

    def _tokens(self, prompt: str, picture: Picture) -> list[int]:
        key = prompt, picture.size
        if key in self._ids:
            return self._ids[key]
        ids = self._inputs.ids(prompt, picture)
        if len(ids) <= self._ids_room:
            self._ids_room -= len(ids)
            self._ids[key] = ids
        return ids


def _alike(pictures: Sequence[Picture], device: torch.device) -> Iterable[list[int]]:
    """Numbers of pictures of one shape, pass by pass; of a pass that is not full the last one fills the rest."""
    shapes: dict[torch.Size, list[int]] = {}
    for number, picture in enumerate(pictures):
        shapes.setdefault(picture.pixels.shape, []).append(number)
    for shape, numbers in shapes.items():
        most = _PICTURES.get(device.type, _PICTURES_ELSEWHERE)
        size = max(1, min(most, _VALUES // shape.numel()))
        for start in range(0, len(numbers), size):
            part = numbers[start : start + size]
            yield part + part[-1:] * (size - len(part))
