"""What the benchmarks share: processes, peak memory, a table, and the line that says where it was measured."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

PROMPT = "a red circle left of a blue square"


def fresh(script: str, **options: object) -> dict[str, Any]:
    """Run a benchmark's worker in a fresh process; its last line of output is its JSON answer."""
    command = _command(script, options)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


class Worker:
    """A benchmark's worker in a process of its own that measures whenever it is asked to, so that two can take turns.

    The script, called with these options, prints a line when it is ready, and for each line of input one with its JSON
    answer (`answer` below does both).
    """

    def __init__(self, script: str, **options: object) -> None:
        self._command = _command(script, options)
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line()

    def measure(self) -> dict[str, Any]:
        """One more answer."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        found: dict[str, Any] = json.loads(self._line())
        return found

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self._command)} failed.")
        return line


def answer(measure: Callable[[], dict[str, Any]]) -> None:
    """The worker's side of `Worker`."""
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


def _command(script: str, options: dict[str, object]) -> list[str]:
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return [sys.executable, script, *arguments]


def trim() -> None:
    """Give freed memory back to the system, where the C library can (glibc), so that using it again is seen."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class Peak:
    """The most memory in use at once, in MiB: of the accelerator if there is one, else of this process.

    Of a process, a thread looks at the resident memory each 2 ms, which works on any Linux; elsewhere `mib` is the
    high-water mark of the whole life of the process, which still bounds it.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._seen = self.baseline = self._now()

    def __enter__(self) -> Peak:
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def mib(self) -> float:
        """The peak above what was in use before."""
        import torch

        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else self._seen
        return (peak - self.baseline) / 2**20

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self._seen = max(self._seen, self._now())

    @staticmethod
    def _now() -> int:
        """Bytes in use."""
        import torch

        if torch.cuda.is_available():
            return torch.cuda.memory_allocated()
        statm = Path("/proc/self/statm")
        if statm.exists():
            return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if platform.system() == "Darwin" else used * 1024


class Clock:
    """Seconds of wall time and of processor time; the latter hardly feels what else the machine is doing."""

    def __enter__(self) -> Clock:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *failure: object) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns aligned by spaces; numbers as they were formatted."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def where(threads: int) -> str:
    """Machine and versions, for below a table."""
    packages = ("bon-search", "torch", "diffusers", "transformers")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{versions}; Python {platform.python_version()}, {os.cpu_count()} cores, {threads} threads{load}"
