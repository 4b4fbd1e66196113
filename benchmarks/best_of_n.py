"""Best-of-N against the loop that users write today.

The loop: the stock pipeline once per seed, each picture scored by itself, the best kept. Ours: `BestOfNPipeline`. Same
model, same reward, same seeds, so the same pictures, which is checked. Each run has a process of its own; the two
alternate, so that a busy machine is equally busy for both. Memory is the peak above what model and reward take once
loaded.

    python benchmarks/best_of_n.py [--n 16] [--repeats 3] [--model embedded] [--reward llava-reward] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import PROMPT, Clock, Peak, fresh, middle, spread, table, where

if TYPE_CHECKING:
    from pipelines.foreign import Pipeline
    from rewards import Reward

SEED = 100


def options() -> argparse.Namespace:
    """Settings; the hidden ones make this process a worker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--reward", default="llava-reward")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--steps", type=int, default=0, help="0: the model's default")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", choices=["loop", "ours", "ours-free"], help=argparse.SUPPRESS)
    parser.add_argument("--pictures", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print both tables."""
    arguments = options()
    if arguments.worker:
        print(json.dumps(work(arguments)))
        return
    settings = {name: value for name, value in vars(arguments).items() if name not in ("worker", "pictures", "repeats")}
    with tempfile.TemporaryDirectory() as folder:
        compare(settings, arguments.repeats, Path(folder))
    memory(settings)
    print(where(arguments.threads))


def compare(settings: dict[str, Any], repeats: int, folder: Path) -> None:
    """Time and memory side by side, and whether the pictures are the same."""
    kinds = {"loop": "stock pipeline, seed by seed", "ours": "BestOfNPipeline", "ours-free": "  batch_invariant=False"}
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind in kinds:
            runs[kind].append(fresh(__file__, worker=kind, pictures=folder / kind, **settings))
    base = runs["loop"]
    rows = []
    for kind, label in kinds.items():
        mine = runs[kind]
        rows.append(
            [
                label,
                f"{middle(mine, 'wall'):.2f}",
                spread(mine, "wall"),
                f"{middle(mine, 'wall') / middle(base, 'wall'):.2f}",
                f"{middle(mine, 'cpu') / middle(base, 'cpu'):.2f}",
                f"{middle(mine, 'peak'):.0f}",
                difference(folder / "loop.npz", folder / f"{kind}.npz"),
            ]
        )
    print(f"\nbest of {settings['n']} by {settings['reward']}, {base[0]['steps']} steps, median of {repeats} runs")
    print(table(["", "seconds", "min-max", "time ratio", "CPU ratio", "peak MiB", "pictures"], rows) + "\n")


def difference(first: Path, second: Path) -> str:
    """How far two sets of pictures are apart, in levels of 8 bits, and whether the same one won."""
    import numpy

    one, other = numpy.load(first), numpy.load(second)
    largest = int(abs(one["pictures"].astype(int) - other["pictures"].astype(int)).max())
    winner = "same" if one["best"] == other["best"] else "ANOTHER"
    return f"differ by {largest}/255, {winner} winner"


def memory(settings: dict[str, Any]) -> None:
    """Peak memory of both for growing N; steps do not matter for it, so there are two."""
    counts = (1, 4, 16, 64)
    peaks = {
        kind: [fresh(__file__, worker=kind, **{**settings, "n": n, "steps": 2})["peak"] for n in counts]
        for kind in ("loop", "ours")
    }
    rows = [[kind, *(f"{peak:.0f}" for peak in values)] for kind, values in peaks.items()]
    print(table(["peak MiB above the loaded models", *(f"N = {n}" for n in counts)], rows) + "\n")


def work(arguments: argparse.Namespace) -> dict[str, Any]:
    """One timed run in this process."""
    import torch

    from pipelines import default_call, load_pipeline
    from rewards import load_reward

    torch.set_num_threads(arguments.threads)
    pipe, reward = load_pipeline(arguments.model), load_reward(arguments.reward)
    call = default_call(pipe)
    if arguments.steps:
        call["num_inference_steps"] = arguments.steps
    reward(pipe(arguments.prompt, **{**call, "num_inference_steps": 1}).images, [arguments.prompt])  # warm up
    seeds = list(range(SEED, SEED + arguments.n))
    run = loop if arguments.worker == "loop" else ours
    with Peak() as peak, Clock() as clock:
        pictures, best = run(pipe, reward, arguments, seeds, call)
    if arguments.pictures:
        import numpy

        numpy.savez(arguments.pictures, pictures=numpy.stack(pictures), best=best)
    return {"wall": clock.wall, "cpu": clock.cpu, "peak": peak.mib, "steps": call.get("num_inference_steps", "default")}


def loop(
    pipe: Pipeline, reward: Reward, arguments: argparse.Namespace, seeds: list[int], call: dict[str, Any]
) -> tuple[list[Any], int]:
    """What users write: pictures in the order of the seeds, and the seed of the best."""
    import numpy
    import torch

    pictures, scores = [], []
    for seed in seeds:
        image = pipe(arguments.prompt, generator=torch.Generator("cpu").manual_seed(seed), **call).images[0]
        scores.append(float(reward([image], [arguments.prompt])[0]))
        pictures.append(numpy.asarray(image))
    return pictures, seeds[scores.index(max(scores))]


def ours(
    pipe: Pipeline, reward: Reward, arguments: argparse.Namespace, seeds: list[int], call: dict[str, Any]
) -> tuple[list[Any], int]:
    """What they could write instead."""
    import numpy

    from bon_search import BestOfNPipeline

    invariant = False if arguments.worker == "ours-free" else None
    best_of = BestOfNPipeline(pipe, reward, batch_size=arguments.batch_size, batch_invariant=invariant)
    steps = call.get("num_inference_steps")
    result = best_of(arguments.prompt, n=len(seeds), seed=seeds[0], steps=steps)
    by_seed = sorted(result.candidates, key=lambda candidate: candidate.seed)
    return [numpy.asarray(candidate.image) for candidate in by_seed], result.best.seed


if __name__ == "__main__":
    main()
