"""Tiny pipelines, each built once; one thread, since the numbers must be the same wherever this runs."""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pipe_of() -> Callable[[str], Any]:
    """The tiny pipeline of a family; tests may replace its scheduler but nothing else."""
    import tiny

    return functools.cache(tiny.make)
