"""What the command lines share: a parser whose errors are one sentence, the numbers options take, exit statuses."""

from __future__ import annotations

import argparse
import ast
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from bon_search.errors import is_users

INTERRUPTED = 130  # the exit status after an interrupt, as shells have it


def exit_status(work: Callable[[], int | None], say: Callable[[str], object], interrupted: str) -> int:
    """Do the work of a command; warnings, and what the user can mend or has stopped, become sentences.

    Args:
        work: Gives the exit status; None is 0.
        say: Tells a sentence on stderr.
        interrupted: What becomes of an interrupted run; follows "interrupted; ".
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # where a module:Class of the user's may lie; behind all that is installed
    try:
        with _warnings_said(say):
            return work() or 0
    except KeyboardInterrupt:
        say(f"interrupted; {interrupted}.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of stdout, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ValueError as error:
        if not is_users(error):
            raise
        say(str(error))
        return 2


@contextmanager
def _warnings_said(say: Callable[[str], object]) -> Iterator[None]:
    """Tell warnings at once, each once, by what they say alone, on lines of their own."""
    before = set[str]()

    def told(message: Warning | str, *_: object, **__: object) -> None:
        from tqdm import tqdm

        if str(message) in before:
            return
        before.add(str(message))
        with tqdm.external_write_mode(sys.stderr):  # a bar makes room
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = told
        yield


def add_scoring(group: argparse._ActionsContainer) -> None:
    """Options of every command that scores pictures by specifications."""
    group.add_argument("--calibration", type=Path, metavar="FILE", help="deviations of the rewards of a sum")
    group.add_argument("--score-cache", type=Path, metavar="FILE", help="keep scores, so that none is computed twice")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence and leave with status 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number of at least 0."""
    return _whole(text, 0)


def finite(text: str) -> float:
    """A number that is neither infinite nor NaN."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = finite(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return value


def setting(text: str) -> tuple[str, object]:
    """NAME=VALUE; the value is a number, True, False, None or a list such as 1,2, anything else is text."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} sets nothing: write an option and its value, as in name=value")
    try:
        return name, ast.literal_eval(value.title() if value in ("true", "false") else value)
    except (ValueError, SyntaxError):
        return name, value


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return value
