"""Two processes on the CPU train the same model as one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rewards.llava.official import read_official
from rewards.training.records import write_records
from rewards.training.run import Run, train
from tests.rewards.training.world import misaligned, small

STEPS = 20


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    pairs, data = misaligned(tmp_path / "data", 6, 0), tmp_path / "data.jsonl"
    write_records(data, pairs)
    command = [
        sys.executable, "-m", "bon_search.train_cli", "--data", str(data), "--base", "embedded", "--cpu",
        "--out", str(tmp_path / "two"), "--steps", str(STEPS), "--batch-size", "4", "--micro", "1", "--lora-rank", "2",
        "--lora-dropout", "0", "--rate", "2e-4",
    ]  # fmt: skip
    shared = {
        **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(),
        "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    processes = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    settings = small(steps=STEPS, micro=1, rank=2, alpha=4.0, dropout=0.0, rate=2e-4)
    list(train(Run(pairs, "embedded", tmp_path / "one", settings)))
    errors = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    one, two = (read_official(tmp_path / name) for name in ("one", "two"))
    for name, value in {**one.head, **one.projector}.items():
        torch.testing.assert_close({**two.head, **two.projector}[name], value, atol=1e-5, rtol=0)
    for name, matrices in one.lora.items():
        for mine, theirs in zip(matrices, two.lora[name], strict=True):
            torch.testing.assert_close(theirs, mine, atol=1e-5, rtol=0)
