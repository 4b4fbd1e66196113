"""How long a user waits before anything happens: the help text, and what the imports take, each in fresh processes.

python benchmarks/startup.py [--repeats 9]
"""

from __future__ import annotations

import argparse
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
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    rows = []
    for label, command in COMMANDS.items():
        times = sorted(seconds(command) for _ in range(repeats))
        rows.append([label, f"{median(times):.2f}", f"{times[0]:.2f}-{times[-1]:.2f}"])
    print(f"\nseconds in a fresh process, median of {repeats}")
    print(table(["", "seconds", "min-max"], rows) + "\n")
    print(where(threads=1))


def seconds(command: list[str]) -> float:
    """Wall time of one process from start to end."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
