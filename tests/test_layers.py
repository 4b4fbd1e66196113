"""Imports go one way and stay light: nobody waits for torch to read a help text."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import bon_search

HEAVY = ["torch", "diffusers", "transformers", "PIL", "numpy", "peft"]


def loaded_by(statement: str) -> set[str]:
    code = f"import sys, json; {statement}; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_help_text_needs_no_heavy_library() -> None:
    assert loaded_by("import bon_search, bon_search.cli as cli; cli.parser().format_help()") == set()


@pytest.mark.parametrize("command", sorted(path.stem for path in Path(bon_search.__file__).parent.glob("*cli.py")))
def test_a_command_runs_as_a_module_too(command: str) -> None:
    run = [sys.executable, "-m", f"bon_search.{command}", "--help"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.startswith("usage: ")


@pytest.mark.parametrize("package", ["bon_search", "rewards", "pipelines"])
def test_a_package_loads_neither_diffusers_nor_transformers(package: str) -> None:
    assert not loaded_by(f"import {package}") & {"diffusers", "transformers", "peft"}


def test_every_public_name_is_there() -> None:
    import pipelines
    import rewards

    for package in (bon_search, pipelines, rewards):
        assert [name for name in package.__all__ if not hasattr(package, name)] == []
