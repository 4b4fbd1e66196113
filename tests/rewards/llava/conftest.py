"""Checkpoints of the recorded cases, loaded once for all tests."""

from functools import cache
from pathlib import Path

import pytest

from tests.rewards.llava.cases import Library, qwen_base


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    @cache
    def unpack() -> Path:
        return qwen_base(tmp_path_factory.mktemp("qwen"))

    return Library(unpack)
