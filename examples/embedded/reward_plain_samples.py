"""More candidates for sentences that name no colour, where the embedded model paints things of several colours.

python reward_plain_samples.py ../../pipelines/embedded RUN/samples --single 24 --pairs 40
"""

import argparse
from pathlib import Path
from random import Random

import torch
from t2i_samples import write
from t2i_sampling import load

from rewards.shapes.scenes import prompt_set, random_spec

GUIDANCE = 2.0
SEED = 90_000_000  # of the first candidate; no other candidate shares its noise


def main() -> None:
    """Write two files: all sentences of one noun, and pairs of the training split with 8 candidates each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--single", type=int, default=24, help="candidates for each sentence of one noun")
    parser.add_argument("--pairs", type=int, default=40, help="sentences of two nouns")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = Random(SEED)
    nouns = dict.fromkeys(prompt_set(12, split="train", skills=["single_object"]))
    single = [spec for spec in nouns for _ in range(options.single)]
    pairs = [random_spec(rng, "two_object", "train") for _ in range(options.pairs)]
    pipe = load(options.model)
    for name, specs in (("single", single), ("pairs", [spec for spec in pairs for _ in range(8)])):
        path = options.out / f"samples-plain-{name}.npz"
        if not path.exists():
            first = SEED + (0 if name == "single" else 1_000_000)
            write(path, pipe, specs, [first + row for row in range(len(specs))], GUIDANCE)


if __name__ == "__main__":
    main()
