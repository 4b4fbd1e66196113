"""The example package, installed as a user would, gives its reward and its search their names."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"
USE = """
import json
from bon_search.cli import main
from bon_search.table import load_search
from rewards import load_reward
from rewards.catalogue import listing
reward, search = load_reward("contrast"), load_search("antithetic")
cost = search.cost(6, 10, {})
print(json.dumps([reward.name, type(reward).__module__, search.formula, search.references, cost.nfe, search.batched]))
main(["--list-searches"])
print(listing())
"""
MAIN = "import sys; from bon_search.cli import main; sys.exit(main(sys.argv[1:]))"

pytestmark = pytest.mark.skipif(
    not (find_spec("pip") and find_spec("setuptools")), reason="installing offline takes pip and setuptools at hand"
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the package is installed: what PYTHONPATH has to say."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "target"))
    shutil.copytree(PLUGIN, source, dirs_exist_ok=True)  # building leaves files beside the source
    offline = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return os.environ | {"PYTHONPATH": str(target)}


def python(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_are_found_by_name(environment: dict[str, str]) -> None:
    found, _, listing = python(environment, "-c", USE).partition("\n")
    assert json.loads(found) == [
        "contrast",
        "bon_search_example.contrast",
        "n·K NFE, n scores",
        ["arXiv:2506.06185"],
        60,
        True,
    ]
    assert "\nantithetic\n    Finish n candidates from noises and their negations.\n" in listing
    assert "\ncontrast\n    of an installed package: bon_search_example.contrast:" in listing


def test_generate_best_uses_both(environment: dict[str, str], tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run"), "--json", "a red circle"]
    chosen = ["--search", "antithetic", "--reward", "contrast", "--n", "4", "--steps", "2"]
    result = json.loads(python(environment, "-c", MAIN, *chosen, *out))
    assert (result["recipe"]["search"], result["recipe"]["reward"]) == ("antithetic", "contrast")
    assert result["recipe"]["reward_revision"] == "1"
    assert len(result["candidates"]) == 4
    assert result["cost"]["nfe"] == 4 * 2


def test_its_own_tests_pass(environment: dict[str, str], tmp_path: Path) -> None:
    shutil.copy(PLUGIN / "test_plugin.py", tmp_path)
    said = python(environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(tmp_path))
    assert " passed" in said
