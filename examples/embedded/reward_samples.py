"""The text-to-image model's candidates, as `t2i_samples.py` wrote them, in groups of one prompt."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from reward_pictures import Pool
from reward_pool import table

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
