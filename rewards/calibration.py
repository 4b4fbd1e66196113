"""How far each reward's scores of one prompt's pictures lie apart, so that a sum can weigh rewards of any scale.

`calibrate` and `score-images --write-calibration` measure it. A calibration file is JSON:
{"deviations": {"pickscore": 0.9, "aesthetic": 0.31}}.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rewards.base import ImagesLike, Reward, check_scores
from rewards.errors import RewardError

TYPICAL = {
    "imagereward": 0.51,
    "pickscore": 0.62,
    "hpsv2": 0.0079,
}  # of FLUX.1-dev and SDXL pictures, 100 prompts × 200


def calibrate(
    rewards: Mapping[str, Reward], groups: Sequence[tuple[str, ImagesLike]], path: str | Path | None = None
) -> dict[str, float]:
    """Each reward's deviation within a prompt, pooled over prompts; written to a calibration file if a path is given.

    Args:
        rewards: By the names that specifications use.
        groups: A prompt and at least two pictures of it, several times.
        path: Where to write.

    Raises:
        RewardError: Too few pictures, a reward that says the same of all, or a file that cannot be written.
    """
    if path is not None:
        check_calibration(path)
    found = {}
    for name, reward in rewards.items():
        given = [(reward(images, [prompt] * len(images)), len(images)) for prompt, images in groups]
        found[name] = deviation(name, [check_scores(scores, name, count).tolist() for scores, count in given])
    if path is not None:
        write_calibration(found, path)
    return found


def deviation(name: str, groups: Sequence[Sequence[float]]) -> float:
    """The deviation of scores within a prompt, √(Σ (score − mean of its prompt)² / Σ (pictures of the prompt − 1)).

    Args:
        name: Of the reward, for errors.
        groups: Scores of the pictures of each prompt, at least two.

    Raises:
        RewardError: Too few pictures, or the same score for all.
    """
    if not groups or any(len(scores) < 2 for scores in groups):
        raise RewardError("A deviation within a prompt takes at least two pictures of each prompt; give more.")
    squares = sum(float(np.var(scores)) * len(scores) for scores in groups)
    found: float = (squares / sum(len(scores) - 1 for scores in groups)) ** 0.5
    if not found > 0:
        raise RewardError(f"The reward {name} scores all pictures of each prompt alike; it cannot be calibrated.")
    return found


def write_calibration(deviations: Mapping[str, float], path: str | Path) -> None:
    """Write a calibration file, or enter deviations in the one that is there; it changes as a whole, or not at all.

    Raises:
        RewardError: It cannot be written, or is a file of something else.
    """
    path = Path(path)
    known = read_calibration(path) if path.is_file() else {}
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps({"deviations": known | dict(deviations)}, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise _unwritable(error) from error


def check_calibration(path: str | Path) -> None:
    """Raise what `write_calibration` would, before there is something to write; the file stays as it is."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        part.touch()
        part.unlink()
        other = path.exists() and not path.is_file()
    except OSError as error:
        raise _unwritable(error) from error
    if other:
        raise _unwritable(f"{path} is no ordinary file")
    if path.exists():
        read_calibration(path)


def _unwritable(why: object) -> RewardError:
    return RewardError(f"The calibration cannot be written ({why}); choose another file.")


def read_calibration(path: str | Path) -> dict[str, float]:
    """The deviations of a calibration file.

    Raises:
        RewardError: It cannot be read, or holds no positive numbers.
    """
    try:
        deviations = {str(k): float(v) for k, v in json.loads(Path(path).read_text("utf-8"))["deviations"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RewardError(
            f'{path} is no calibration ({error}); it is JSON such as {{"deviations": {{"pickscore": 0.9}}}}.'
        ) from error
    wrong = [name for name, value in deviations.items() if not 0 < value < float("inf")]
    if wrong:
        raise RewardError(f"{path} gives {wrong[0]} a deviation of {deviations[wrong[0]]}; it must be positive.")
    return deviations
