"""What the machinery costs when there is nothing to gain: N = 1 against the stock pipeline's own call.

Both make the picture of the same seed and score it with the same reward, in one process, in turn, so that whatever else
the machine does falls on both. The figure is the median over pairs of the ratio of their times.

    python benchmarks/overhead.py [--repeats 15] [--model embedded] [--reward llava-reward] [--steps 20] [--threads 1]
"""

from __future__ import annotations

import argparse
from statistics import median, quantiles
from typing import Any

from measure import PROMPT, Clock, table, where


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--reward", default="llava-reward")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--steps", type=int, default=0, help="0: the model's default")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    pairs = measure(arguments)
    rows = [row("wall time", [(a.wall, b.wall) for a, b in pairs]), row("CPU time", [(a.cpu, b.cpu) for a, b in pairs])]
    print(f"\nN = 1 by {arguments.reward}, {arguments.repeats} pairs")
    print(table(["", "stock, s", "ours, s", "overhead", "quartiles"], rows) + "\n")
    print(where(arguments.threads))


def measure(arguments: argparse.Namespace) -> list[tuple[Clock, Clock]]:
    """Alternating runs of the stock call and ours; the first pair, which warms up, is left out."""
    import torch

    from bon_search import BestOfNPipeline
    from pipelines import default_call, load_pipeline
    from rewards import load_reward

    pipe, reward = load_pipeline(arguments.model), load_reward(arguments.reward)
    call: dict[str, Any] = default_call(pipe)
    if arguments.steps:
        call["num_inference_steps"] = arguments.steps
    best_of = BestOfNPipeline(pipe, reward)
    pairs = []
    for seed in range(arguments.repeats + 1):
        with Clock() as stock:
            image = pipe(arguments.prompt, generator=torch.Generator("cpu").manual_seed(seed), **call).images[0]
            reward([image], [arguments.prompt])
        with Clock() as ours:
            best_of(arguments.prompt, n=1, seed=seed, steps=call.get("num_inference_steps"))
        pairs.append((stock, ours))
    return pairs[1:]


def row(label: str, pairs: list[tuple[float, float]]) -> list[str]:
    """Medians of both, and of their ratio, in per cent above one."""
    ratios = [100 * (ours / stock - 1) for stock, ours in pairs]
    low, _, high = quantiles(ratios, n=4)
    stock, ours = (median(times) for times in zip(*pairs, strict=True))
    return [label, f"{stock:.3f}", f"{ours:.3f}", f"{median(ratios):+.1f} %", f"{low:+.1f} to {high:+.1f} %"]


if __name__ == "__main__":
    main()
