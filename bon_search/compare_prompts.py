"""The prompts of a comparison: a file with one a line, or sentences that the embedded model never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bon_search.errors import SearchError
from bon_search.files import reason

if TYPE_CHECKING:
    from pathlib import Path

SKILLS = ("position", "two_object", "counting")  # of GenEval's six those that are held out and leave much to search for
PER_SKILL, SEED = 8, 3  # seeds 0, 1, 2 and 7 chose and measured the embedded weights


def default_prompts() -> list[str]:
    """24 held-out sentences of the shapes world, eight of each of three skills, which take turns."""
    from rewards.shapes.scenes import prompt_set

    skills = [prompt_set(PER_SKILL, seed=SEED, split="test", skills=[skill]) for skill in SKILLS]
    return [spec.prompt for turn in zip(*skills, strict=True) for spec in turn]


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file, without empty ones.

    Raises:
        SearchError: It cannot be read, is no UTF-8, or holds nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SearchError(f"{path} cannot be read ({reason(error)}); give a text file, one prompt a line.") from error
    except ValueError as error:  # not UTF-8, or a name that no file can have
        raise SearchError(f"{path} is not a UTF-8 text; give a text file, one prompt a line.") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise SearchError(f"{path} holds no prompt; write one a line.")
    return prompts
