"""The text-to-image model's candidates, as `t2i_samples.py` wrote them, in groups of one prompt."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from reward_pictures import Pool
from reward_pool import table

from rewards.shapes.captions import Spec
from rewards.shapes.detector import Detected


@dataclass(frozen=True)
class Group:
    """The candidates for one prompt.

    Attributes:
        prompt, skill: what was asked for.
        rows: of the candidates in the pool.
        correct: the verifier's verdicts, bool (n,).
    """

    prompt: str
    skill: str
    rows: tuple[int, ...]
    correct: NDArray[np.bool_]

    @property
    def mixed(self) -> bool:
        """Whether some pass and some fail."""
        return bool(self.correct.any() and not self.correct.all())


def load_samples(paths: Iterable[Path]) -> tuple[Pool, tuple[Group, ...]]:
    """All candidates with what the verifier found in them, and their groups."""
    files = [np.load(path) for path in sorted(paths)]
    columns = {
        name: np.concatenate([file[name] for file in files]) for name in ("images", "prompts", "skills", "correct")
    }
    found = [json.loads(text) for file in files for text in file["objects"]]
    tables = np.stack([table([Detected(**item) for item in items]) for items in found])
    members: dict[str, list[int]] = {}
    for row, prompt in enumerate(columns["prompts"].tolist()):
        members.setdefault(prompt, []).append(row)
    groups = tuple(
        Group(prompt, str(columns["skills"][rows[0]]), tuple(rows), columns["correct"][rows].astype(bool))
        for prompt, rows in members.items()
    )
    return Pool(columns["images"], tables), groups


def wandered(pool: Pool, rows: Iterable[int], rng: Random, *, mirror: bool, reach: int = 4) -> Pool:
    """Candidates shifted by up to `reach` whole pixels, none over the edge, and mirrored left to right if asked.

    All shapes are their own mirror images, so what the verifier found stays true of what moved with it.
    """
    images, tables = [], []
    for row in rows:
        image, table_ = pool.images[row], pool.objects[row].copy()
        there = table_[:, 0] >= 0
        if mirror:
            image = image[:, ::-1]
            table_[there, 2] = image.shape[1] - 1 - table_[there, 2]
        down, right = (_shift(image, axis, rng, reach) for axis in (0, 1))
        padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        images.append(padded[reach - down :, reach - right :][: image.shape[0], : image.shape[1]])
        table_[there, 2] += right
        table_[there, 3] += down
        tables.append(table_)
    return Pool(np.stack(images), np.stack(tables))


def mirrored(spec: Spec) -> Spec:
    """The sentence that is true of the mirror image."""
    swapped = {"left of": "right of", "right of": "left of"}
    return replace(spec, relation=swapped.get(spec.relation or "", spec.relation))


def _shift(image: NDArray[np.uint8], axis: int, rng: Random, reach: int) -> int:
    """A shift along `axis` that leaves a margin of a pixel around everything coloured."""
    coloured = image.max(-1).astype(int) - image.min(-1) > 40
    along = np.flatnonzero(coloured.any(1 - axis))
    low, high = (along[0], along[-1]) if len(along) else (32, 32)
    before, after = max(0, min(reach, low - 1)), max(0, min(reach, image.shape[axis] - 2 - high))
    return rng.randint(-before, after)
