"""The replay benchmark on made-up files: what it writes, and that it tests on prompts it did not fit."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bon_search.calibrate import best_of_n_score
from tests.bon_search.trajectories import normal_previews

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "previews.py"


def write(path: Path, seed: int, *, twice: bool = False) -> np.ndarray:
    """Arrays (16 prompts, 40 images, 20 steps): the scores of the last look before each step, or 0 before any."""
    scores = normal_previews(16, 40, seed).scores.numpy()
    steps = [np.zeros_like(scores[..., 0])] * 5 + [scores[..., 0]] * 6 + [scores[..., 1]] * 8 + [scores[..., 2]]
    noise = 1e-3 * np.random.default_rng(seed).standard_normal((16, 40, 20))
    whole = (np.stack(steps, axis=-1) + noise).astype(np.float32)
    np.savez(path, toy=np.concatenate([whole, whole], axis=1) if twice else whole)
    return whole


def run(fit: Path, test: Path, *options: str) -> dict[str, object]:
    out = test.with_suffix(".json")
    command = [sys.executable, str(SCRIPT), "--fit", str(fit), "--test", str(test), "--json", str(out), *options]
    subprocess.run(command, check=True, capture_output=True)
    found: dict[str, object] = json.loads(out.read_text())
    return found


def test_the_file_says_what_was_reached_at_what_cost(tmp_path: Path) -> None:
    import torch

    write(tmp_path / "fit.npz", 0)
    tested = write(tmp_path / "test.npz", 1, twice=True)
    found = run(tmp_path / "fit.npz", tmp_path / "test.npz", "--draws", "2")
    assert set(found) >= {"mean_cost_ratio", "cost_ratio", "quality", "target"}
    target = best_of_n_score(torch.from_numpy(tested[..., -1]), 16)  # a repeated image is one candidate
    assert found["target"] == {"toy": pytest.approx(target)}
    assert found["quality"]["toy"] >= target  # type: ignore[index]
    assert found["mean_cost_ratio"] == found["cost_ratio"]["toy"]  # type: ignore[index]
    assert 0.2 < found["mean_cost_ratio"] < 0.95  # type: ignore[operator]
    assert found["tested_on"] == "other prompts"


def test_one_file_is_halved(tmp_path: Path) -> None:
    write(tmp_path / "one.npz", 0)
    found = run(tmp_path / "one.npz", tmp_path / "one.npz", "--policy", "halving")
    assert found["tested_on"] == "swapped halves"
    assert found["policy"] == "halving"
    assert found["quality"]["toy"] == pytest.approx(found["target"]["toy"])  # type: ignore[index]
