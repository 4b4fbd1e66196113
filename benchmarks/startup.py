"""How long a user waits before anything happens: the help text, and what the imports take, each in fresh processes.

python benchmarks/startup.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from measure import table, where

COMMANDS = {
    "generate-best --help": [str(Path(sys.executable).parent / "generate-best"), "--help"],
    "python -c pass": [sys.executable, "-c", "pass"],
    "import bon_search": [sys.executable, "-c", "import bon_search"],
    "import rewards": [sys.executable, "-c", "import rewards"],
    "import pipelines": [sys.executable, "-c", "import pipelines"],
    "import torch": [sys.executable, "-c", "import torch"],
    "load_pipeline()": [sys.executable, "-c", "from pipelines import load_pipeline; load_pipeline()"],
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rows = []
    for label, command in COMMANDS.items():
        runs = [seconds(command) for _ in range(repeats)]
        walls, processor = sorted(wall for wall, _ in runs), median(cpu for _, cpu in runs)
        rows.append([label, f"{median(walls):.2f}", f"{walls[0]:.2f}-{walls[-1]:.2f}", f"{processor:.2f}"])
    print(f"\nseconds in a fresh process, median of {repeats}")
    print(table(["", "seconds", "min-max", "CPU seconds"], rows) + "\n")
    print(where(threads=1))


def seconds(command: list[str]) -> tuple[float, float]:
    """Wall and processor time of one process from start to end; the latter hardly feels a busy machine."""
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, processor


if __name__ == "__main__":
    main()
