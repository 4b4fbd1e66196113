"""Best-of-N against the loop that users write today.

The loop: the stock pipeline once per seed, each picture scored by itself, the best kept. Ours: `BestOfNPipeline`. Same
model, same reward, same seeds, so the same pictures, which is checked. Times are taken in one process, the two in turn,
so that a busy machine is equally busy for both; the first round, which pays for whatever is done once, has its own
column. Memory is taken in fresh processes: the peak above what model and reward take once loaded.

    python benchmarks/best_of_n.py [--n 16] [--repeats 5] [--model embedded] [--reward llava-reward] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
from statistics import median
from typing import TYPE_CHECKING, Any

from measure import PROMPT, Clock, Peak, fresh, table, where

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.foreign import Pipeline
    from rewards import Reward

SEED = 100
COUNTS = (1, 4, 16, 64)
LABELS = {"loop": "stock pipeline, seed by seed", "ours": "BestOfNPipeline", "ours-free": "  batch_invariant=False"}


def options() -> argparse.Namespace:
    """Settings; the hidden one makes this process a worker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--reward", default="llava-reward")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--steps", type=int, default=0, help="0: the model's default")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-of", choices=list(LABELS), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print both tables."""
    settings = options()
    if settings.memory_of:
        contestants = Contestants(settings)
        contestants.warm_up()
        with Peak() as peak:
            contestants.run[settings.memory_of]()
        print(json.dumps({"peak": peak.mib}))
        return
    times(settings)
    memory(settings)
    print(where(settings.threads))


class Contestants:
    """Model and reward, loaded, and the ways to use them: `run[kind]()` gives pictures by seed and the best seed."""

    def __init__(self, settings: argparse.Namespace) -> None:
        import torch

        from pipelines import default_call, load_pipeline
        from rewards import load_reward

        torch.set_num_threads(settings.threads)
        self.settings = settings
        self.pipe: Pipeline = load_pipeline(settings.model)
        self.reward: Reward = load_reward(settings.reward)
        self.call: dict[str, Any] = default_call(self.pipe)
        if settings.steps:
            self.call["num_inference_steps"] = settings.steps
        self.run: dict[str, Callable[[], tuple[list[Any], int]]] = {
            "loop": self.loop,
            "ours": self.ours,
            "ours-free": lambda: self.ours(batch_invariant=False),
        }

    def warm_up(self) -> None:
        """One step and one score, so that nothing is loaded later."""
        images = self.pipe(self.settings.prompt, **{**self.call, "num_inference_steps": 1}).images
        self.reward(images, [self.settings.prompt])

    def loop(self) -> tuple[list[Any], int]:
        """What users write."""
        import numpy
        import torch

        pictures, scores = [], []
        for seed in range(SEED, SEED + self.settings.n):
            generator = torch.Generator("cpu").manual_seed(seed)
            image = self.pipe(self.settings.prompt, generator=generator, **self.call).images[0]
            scores.append(float(self.reward([image], [self.settings.prompt])[0]))
            pictures.append(numpy.asarray(image))
        return pictures, SEED + scores.index(max(scores))

    def ours(self, batch_invariant: bool | None = None) -> tuple[list[Any], int]:
        """What they could write instead."""
        import numpy

        from bon_search import BestOfNPipeline

        size = self.settings.batch_size
        best_of = BestOfNPipeline(self.pipe, self.reward, batch_size=size, batch_invariant=batch_invariant)
        steps = self.call.get("num_inference_steps")
        result = best_of(self.settings.prompt, n=self.settings.n, seed=SEED, steps=steps)
        by_seed = sorted(result.candidates, key=lambda candidate: candidate.seed)
        return [numpy.asarray(candidate.image) for candidate in by_seed], result.best.seed


def times(settings: argparse.Namespace) -> None:
    """Time side by side, and whether the pictures are the same."""
    contestants = Contestants(settings)
    contestants.warm_up()
    clocks: dict[str, list[Clock]] = {kind: [] for kind in LABELS}
    made = {}
    for _ in range(settings.repeats + 1):
        for kind, run in contestants.run.items():
            with Clock() as clock:
                made[kind] = run()
            clocks[kind].append(clock)
    rows = []
    for kind, label in LABELS.items():
        pairs = list(zip(clocks[kind], clocks["loop"], strict=True))
        wall = [mine.wall for mine in clocks[kind][1:]]
        rows.append(
            [
                label,
                f"{median(wall):.2f}",
                f"{min(wall):.2f}-{max(wall):.2f}",
                f"{median(mine.wall / base.wall for mine, base in pairs[1:]):.2f}",
                f"{median(mine.cpu / base.cpu for mine, base in pairs[1:]):.2f}",
                f"{pairs[0][0].cpu / pairs[0][1].cpu:.2f}",
                difference(made["loop"], made[kind]),
            ]
        )
    steps = contestants.call.get("num_inference_steps", "default")
    print(f"\nbest of {settings.n} by {settings.reward}, {steps} steps, batch size {settings.batch_size}")
    head = ["", "seconds", "min-max", "time ratio", "CPU ratio", "CPU, first", "pictures"]
    print(f"median of {settings.repeats} rounds\n{table(head, rows)}\n")


def difference(first: tuple[list[Any], int], second: tuple[list[Any], int]) -> str:
    """How far two sets of pictures are apart, in levels of 8 bits, and whether the same one won."""
    import numpy

    one, other = (numpy.stack(pictures).astype(int) for pictures, _ in (first, second))
    winner = "same" if first[1] == second[1] else "ANOTHER"
    return f"differ by {abs(one - other).max()}/255, {winner} winner"


def memory(settings: argparse.Namespace) -> None:
    """Peak memory for growing N; the number of steps does not matter for it, so there are two."""
    shared = {name: value for name, value in vars(settings).items() if name not in ("memory_of", "repeats")}
    rows = []
    for kind, counts in (("loop", COUNTS[2:3]), ("ours", COUNTS)):
        peaks = {n: fresh(__file__, **{**shared, "memory_of": kind, "n": n, "steps": 2})["peak"] for n in counts}
        rows.append([LABELS[kind], *(f"{peaks[n]:.0f}" if n in peaks else "" for n in COUNTS)])
    print(table(["peak MiB above the loaded models", *(f"N = {n}" for n in COUNTS)], rows) + "\n")


if __name__ == "__main__":
    main()
