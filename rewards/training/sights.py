"""Pictures of the records as the model takes them: decoded ahead in threads, and seen by a frozen tower only once."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rewards.llava.backbone import Inputs, Picture
from rewards.llava.batches import Row
from rewards.training.checks import open_picture
from rewards.training.records import Side
from rewards.training.trainee import Trainee

_WORKERS = 4


class Sights:
    """Rows of sides, and the tower's features of their pictures.

    A picture's features are computed alone, whatever it comes with, so that they do not depend on what is kept already.

    Args:
        trainee: whose tower looks at them.
        inputs: prepare pictures and prompts.
        keep: bytes of features that are kept, the most recently used ones; of a tower that is trained none are.
    """

    def __init__(self, trainee: Trainee, inputs: Inputs, *, keep: int = 1 << 30) -> None:
        self._trainee, self._inputs = trainee, inputs
        self._frozen = not trainee.settings.tower
        self._keep, self._held = keep, 0
        self._seen: OrderedDict[Path, tuple[Picture, Tensor]] = OrderedDict()
        self._ahead: dict[Path, Future[Picture]] = {}
        self._pool = ThreadPoolExecutor(_WORKERS)

    def expect(self, sides: Iterable[Side]) -> None:
        """Begin to decode pictures that will be asked for next."""
        for side in sides:
            if side.image not in self._seen and side.image not in self._ahead:
                self._ahead[side.image] = self._pool.submit(self._decoded, side.image)

    def rows(self, sides: Sequence[Side]) -> tuple[list[Row], list[Tensor] | None]:
        """Rows of the sides, and the features of their pictures where the tower is frozen."""
        paths = list(dict.fromkeys(side.image for side in sides))
        self.expect(sides)
        looks = {path: self._look(path) for path in paths}
        rows = [Row(looks[side.image][0], self._inputs.ids(side.prompt, looks[side.image][0])) for side in sides]
        return rows, [looks[path][1] for path in paths] if self._frozen else None

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _decoded(self, path: Path) -> Picture:
        return self._inputs.picture(open_picture(path))

    def _look(self, path: Path) -> tuple[Picture, Tensor]:
        if path in self._seen:
            self._seen.move_to_end(path)
            return self._seen[path]
        picture = self._ahead.pop(path).result()
        if not self._frozen:
            return picture, picture.pixels
        with torch.no_grad():
            (features,) = self._trainee.features([Row(picture, [])])
        seen = replace(picture, pixels=picture.pixels[:0]), features
        self._seen[path] = seen
        self._held += features.nbytes
        while self._held > self._keep and len(self._seen) > 1:
            self._held -= self._seen.popitem(last=False)[1][1].nbytes
        return seen
