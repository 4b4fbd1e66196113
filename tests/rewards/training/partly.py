"""Run as a module: the first steps of a training, with a state after the last of them. DATA OUT STEPS."""

import sys
from itertools import islice
from pathlib import Path

from rewards.training.records import read_records
from rewards.training.run import Run, train
from tests.rewards.training.world import small


def partly(data: Path, out: Path, steps: int, *, resume: bool = False) -> None:
    """As many steps as were asked for, of twenty."""
    records, _ = read_records(data)
    settings = small(steps=20, micro=1, rank=2, alpha=4.0, dropout=0.0, rate=2e-4)
    run = Run(records, "embedded", out, settings, save_every=steps, cpu=True)
    list(islice(train(run, resume=resume), steps))


if __name__ == "__main__":
    partly(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
