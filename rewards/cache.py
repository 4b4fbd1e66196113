"""Scores that are kept in a file, so that nothing is ever scored twice.

A score is found again by the name and revision of the reward, the content of the picture and the prompt; the file holds
hashes of these and the numbers, in SQLite, so that any number of processes may share it. Of a combination each reward
keeps its own scores, so that other weights, ranks or bounds ask no reward again. A revision is of weights and settings:
after a change of a reward's code, begin a new file.
"""

import hashlib
import json
import math
import sqlite3
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rewards.base import ImagesLike, Reward, Scores, as_images, as_scores
from rewards.combine import check_prompt, take, with_parts
from rewards.errors import RewardError
from rewards.vision import check_texts

_PATIENCE = 60  # seconds that a process waits for another one's write
_TABLE = "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID"


def cached(reward: Reward, path: str | Path | None) -> Reward:
    """The reward, or the combination, with its scores kept in a file if one is named; a judge keeps its own answers.

    Raises:
        RewardError: See `Cached`.
    """
    if path is None:
        return reward
    return with_parts(reward, lambda part: part if getattr(part, "keeps_answers", False) else Cached(part, path))


class Cached:
    """A single reward that looks a score up before it computes one.

    Pictures that require a gradient go to the reward itself, and so do inputs that are no pictures, which it refuses.
    A score that is not finite is given out but not kept. A file that can no longer be read or written costs a warning
    and no score.

    Args:
        reward: An absolute one with a revision; for a combination see `cached`.
        path: The file; it is made if there is none.

    Raises:
        RewardError: A reward whose scores cannot be kept, or a file that is no such cache or cannot be made.
    """

    absolute = True

    def __init__(self, reward: Reward, path: str | Path) -> None:
        _check_keepable(reward)
        self._reward, self._path = reward, Path(path)
        self.name = reward.name
        self.revision = str(getattr(reward, "revision", ""))
        self.differentiable = getattr(reward, "differentiable", False) is True
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as database, database:
                database.execute(_TABLE)
                database.execute("SELECT key, score FROM scores LIMIT 1")
        except (OSError, sqlite3.Error) as error:
            raise RewardError(f"{path} cannot keep scores ({error}); give a new file, or one made by this.") from error

    def check_prompt(self, prompt: str) -> None:
        """Raise what the reward itself would of a prompt that it cannot judge."""
        check_prompt(self._reward, prompt)

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores of N pictures, (N,) float32; of one picture and prompt always the same number.

        Raises:
            RewardError: What the reward refuses.
        """
        smooth = isinstance(images, Tensor) and images.requires_grad and torch.is_grad_enabled()
        contents = [] if smooth else _contents(images)
        if not contents:
            return self._reward(images, prompts)
        check_texts(prompts, len(contents))
        keys = [self._key(content, prompt) for content, prompt in zip(contents, prompts, strict=True)]
        scores = self._find(keys)
        places = [place for place, key in enumerate(keys) if key not in scores and key not in keys[:place]]
        if places:
            given = self._reward(take(images, places), [prompts[place] for place in places])
            fresh = as_scores(given, self.name, len(places)).tolist()
            new = {keys[place]: score for place, score in zip(places, fresh, strict=True)}
            self._keep(new)
            scores |= new
        device = images.device if isinstance(images, Tensor) else None
        return torch.tensor([scores[key] for key in keys], dtype=torch.float32, device=device)

    def _key(self, content: bytes, prompt: str) -> bytes:
        return hashlib.sha256(json.dumps([self.name, self.revision, prompt]).encode() + content).digest()

    def _find(self, keys: Iterable[bytes]) -> dict[bytes, float]:
        """The scores that are kept."""
        found = {}
        try:
            with closing(self._open()) as database:
                for key in keys:
                    row = database.execute("SELECT score FROM scores WHERE key = ?", (key,)).fetchone()
                    if row is not None:
                        found[key] = float(row[0])
        except sqlite3.Error as error:
            warnings.warn(f"Scores kept in {self._path} cannot be read ({error}).", stacklevel=3)
        return found

    def _keep(self, scores: Mapping[bytes, float]) -> None:
        """Keep those that are finite; what another process kept meanwhile stays."""
        finite = [(key, score) for key, score in scores.items() if math.isfinite(score)]
        try:
            with closing(self._open()) as database, database:
                database.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", finite)
        except sqlite3.Error as error:
            warnings.warn(f"Scores cannot be kept in {self._path} ({error}).", stacklevel=3)

    def _open(self) -> sqlite3.Connection:
        """A connection for one use: none is shared between threads or inherited by a process."""
        return sqlite3.connect(self._path, timeout=_PATIENCE)


def _check_keepable(reward: Reward) -> None:
    if getattr(reward, "keeps_answers", False):
        raise RewardError(
            f"The reward {reward.name!r} keeps its own answers, all but failed ones; use it without another cache."
        )
    if not reward.absolute:
        raise RewardError(
            f"Scores of {reward.name!r} depend on the other candidates, so they cannot be kept for later; expected an "
            "absolute reward: use it without a cache."
        )
    if not getattr(reward, "revision", ""):
        raise RewardError(
            f"The reward {reward.name!r} has no revision, so nobody could tell whether a kept score is still its own; "
            "give it an attribute revision that changes with its weights, or use it without a cache."
        )


def _contents(images: ImagesLike) -> list[bytes]:
    """A hash of each picture's content; none at all where the input is no pictures, of which the reward says why."""
    if isinstance(images, Tensor | np.ndarray):
        return [_of_pixels(picture) for picture in as_images(images)]
    if not isinstance(images, Sequence) or not all(isinstance(image, Image.Image) for image in images):
        return []
    try:
        return [_of_picture(image) for image in images]
    except (OSError, ValueError, SyntaxError):  # a damaged file
        return []


def _of_pixels(picture: Tensor) -> bytes:
    """Of (3, H, W), with its dtype."""
    header = json.dumps([str(picture.dtype), list(picture.shape)]).encode()
    numbers = picture.detach().cpu().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(header + numbers.tobytes()).digest()


def _of_picture(image: Image.Image) -> bytes:
    """Of the pixels as they are, with all that decides what they look like; of plain RGB as of the same in a tensor."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return _of_pixels(as_images([image])[0])
    palette = image.getpalette() if image.mode in ("P", "PA") else None
    header = [image.mode, image.size, palette, repr(image.info.get("transparency"))]
    return hashlib.sha256(json.dumps(header).encode() + image.tobytes()).digest()
