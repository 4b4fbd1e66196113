"""Calls into diffusers and transformers: on a copy of ours, their bars off, their failures as sentences."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from pipelines.conditioning import remember_prompts
from pipelines.errors import PipelineError

Pipeline: TypeAlias = Any
"""A diffusers pipeline; diffusers has no types."""


def private_copy(pipe: Pipeline) -> Pipeline:
    """The same modules in another pipeline object, so that the caller's keeps its scheduler and progress bar.

    Where it runs is found out once and not, by a walk over all modules, in each window.
    """
    private = copy.copy(pipe)
    kind, where = type(pipe), {"__module__": type(pipe).__module__, "_execution_device": pipe._execution_device}
    private.__class__ = type(kind.__name__, (kind,), where)
    private.set_progress_bar_config(disable=True)
    remember_prompts(private)
    return private


@contextmanager
def bars_off() -> Iterator[None]:
    """No progress bars for reading files within; downloads keep theirs."""
    import diffusers.utils.logging as ours
    import transformers.utils.logging as theirs

    shown = [library for library in (ours, theirs) if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


@contextmanager
def sentences(name: str, what: str) -> Iterator[None]:
    """Whatever goes wrong while foreign code reads weights becomes one sentence; its cause stays attached."""
    try:
        yield
    except (PipelineError, MemoryError):
        raise
    except Exception as error:
        raise PipelineError(f"The {what} {name} could not be loaded: {one_line(error)}") from error


def one_line(error: Exception, limit: int = 300) -> str:
    """What an error says, on one line of at most `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
