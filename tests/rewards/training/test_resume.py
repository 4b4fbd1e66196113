"""A training that is killed at any moment and resumed ends in the same bits as one that was left alone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from safetensors.torch import load_file, save_file

from rewards.errors import CheckpointError
from rewards.llava.checkpoint import EMBEDDED
from rewards.training.records import write_records
from rewards.training.run import DONE, LOG, Run, train
from rewards.training.state import FILE
from tests.rewards.training.world import misaligned, small

STEPS = 8
WEIGHTS = ("pytorch_model.bin", "lora/adapter_model.bin")


def run_of(tmp_path: Path, out: str, **changes: object) -> Run:
    settings = small(steps=STEPS, batch=2, micro=2, rank=2, alpha=4.0, **changes)
    return Run(misaligned(tmp_path / "data", 5, 0), "embedded", tmp_path / out, settings, save_every=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    list(train(run_of(folder, "out")))
    return folder


@pytest.mark.parametrize("kills", [(1,), (4,), (2, 3, 1), (8,)], ids=str)
def test_killed_between_steps(whole: Path, kills: tuple[int, ...]) -> None:
    """Kills after so many steps of each attempt; a state is on disk after steps 3, 6 and 8 alone."""
    run = run_of(whole, f"killed-{'-'.join(map(str, kills))}")
    for attempt, steps in enumerate(kills):
        list(islice(train(run, resume=attempt > 0), steps))
        (run.out / f"{FILE}.part").write_bytes(b"cut off")
        with (run.out / LOG).open("a") as file:
            file.write('{"step": 9')
    list(train(run, resume=True))
    for name in WEIGHTS:
        assert (run.out / name).read_bytes() == (whole / "out" / name).read_bytes()
    lines = [(folder / LOG).read_text().count("\n") for folder in (run.out, whole / "out")]
    assert lines == [STEPS, STEPS]
    assert not (run.out / FILE).exists()


def test_killed_at_ten_random_steps(tmp_path: Path) -> None:
    """Each attempt goes on for some steps behind the last state, and what it did since the next one is lost."""
    settings = small(steps=30, batch=2, micro=2, rank=2, alpha=4.0)
    pairs = misaligned(tmp_path / "data", 5, 0)
    left_alone, killed = (Run(pairs, "embedded", tmp_path / name, settings, save_every=2) for name in ("one", "ten"))
    list(train(left_alone))
    draws = Random(7)
    attempts = (islice(train(killed, resume=True), draws.randint(1, 4)) for _ in range(10))
    reached = [list(attempt)[-1].step for attempt in attempts]
    assert max(reached) < 30
    list(train(killed, resume=True))
    for name in WEIGHTS:
        assert (killed.out / name).read_bytes() == (left_alone.out / name).read_bytes()


def test_what_is_there_already_stays(whole: Path) -> None:
    assert list(train(run_of(whole, "out"), resume=True)) == []
    with pytest.raises(CheckpointError, match="finished training"):
        next(train(run_of(whole, "out")))
    run = run_of(whole, "begun")
    list(islice(train(run), 4))
    with pytest.raises(CheckpointError, match="go on with --resume"):
        next(train(run))
    with pytest.raises(CheckpointError, match=r"has rate 0\.002, this one 0\.001"):
        next(train(run_of(whole, "begun", rate=1e-3), resume=True))
    (run.out / FILE).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="is damaged"):
        next(train(run, resume=True))


def test_other_weights_under_the_bases_name_are_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(EMBEDDED, base)
    run = replace(run_of(tmp_path, "out"), base=str(base))
    list(islice(train(run), 4))
    state = load_file(base / "model.safetensors")
    next(iter(state.values())).flatten()[0] += 1
    save_file(state, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"has base weights '\w{12}', this one '\w{12}'"):
        next(train(run, resume=True))


@pytest.mark.slow
def test_a_process_killed_at_ten_random_moments(whole: Path) -> None:
    """The command itself, killed by the system whatever it is doing, soon after each of ten states."""
    pairs, data, out = misaligned(whole / "data", 5, 0), whole / "data.jsonl", whole / "signal"
    write_records(data, pairs)
    steps = 30
    command = [
        sys.executable, "-m", "bon_search.train_cli", "--data", str(data), "--base", "embedded", "--out", str(out),
        "--steps", str(steps), "--batch-size", "2", "--micro", "2", "--lora-rank", "2", "--rate", "2e-3",
        "--save-every", "1", "--cpu", "--resume",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    draws, kills = Random(0), 0
    while not (out / DONE).exists():
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        began = (out / FILE).stat().st_mtime_ns if (out / FILE).exists() else 0
        while process.poll() is None and (not (out / FILE).exists() or (out / FILE).stat().st_mtime_ns == began):
            time.sleep(0.01)  # until it has made a step
        time.sleep(draws.uniform(0, 0.03))
        if kills < 10 and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 10
    settings = small(steps=steps, batch=2, micro=2, rank=2, alpha=4.0, dropout=0.05)
    list(train(Run(pairs, "embedded", whole / "undisturbed", settings)))
    for name in WEIGHTS:
        assert (out / name).read_bytes() == (whole / "undisturbed" / name).read_bytes()
