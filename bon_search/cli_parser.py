"""What generate-best can be asked for."""

from __future__ import annotations

import argparse
from pathlib import Path

from bon_search.arguments import Parser, above_zero, add_scoring, finite, natural, positive, share


def parser() -> Parser:
    """All options of generate-best."""
    p = Parser(
        prog="generate-best",
        description="Make N candidates of a prompt with any diffusers pipeline and keep the one a reward likes best.",
        epilog='Example: generate-best --n 16 "a red circle left of a blue square"',
    )
    what = p.add_argument_group("what to make")
    what.add_argument("prompt", nargs="?", help="what the picture should show")
    what.add_argument("--prompts", type=Path, metavar="FILE", help="a text file with one prompt a line, instead")
    what.add_argument("--n", type=positive, help="candidates per prompt (default: 16, or as the budget allows)")
    what.add_argument("--seed", type=natural, help="candidate k starts from seed + k (default: 0)")
    what.add_argument("--from", dest="source", type=Path, metavar="RESULT", help="remake a candidate of a result.json")
    what.add_argument("--candidate", type=positive, metavar="K", help="which one, by rank (default: 1, the best)")

    search = p.add_argument_group("search")
    search.add_argument("--search", metavar="NAME", help='how to look for it (default: "best_of_n")')
    search.add_argument("-o", dest="options", action="append", metavar="NAME=VALUE", help="an option of the search")
    search.add_argument("--until", type=finite, metavar="SCORE", help="stop at a candidate with this score")
    search.add_argument("--budget-nfe", type=positive, metavar="NFE", help="at most so many denoiser evaluations")
    search.add_argument("--budget-seconds", type=above_zero, metavar="S", help="at most so many seconds")
    search.add_argument("--list-searches", action="store_true", help="print all searches with their costs, and stop")
    search.add_argument("--cite", action="store_true", help="print the papers behind the search as BibTeX, and stop")

    how = p.add_argument_group("model and reward")
    how.add_argument("--model", help='"embedded" (default), a hub id, a folder or a .safetensors file')
    how.add_argument("--reward", help='a reward by name (default: "llava-reward"), or module:Class')
    add_scoring(how)
    how.add_argument("--held-out", action="append", metavar="REWARD", help="a reward that only gives its opinion")
    how.add_argument("--lora", metavar="PATH", help="LoRA weights on top of the model")
    how.add_argument("--preview-decoder", metavar="NAME", help="a tiny decoder (TAESD) for unfinished candidates")
    how.add_argument("--scheduler", metavar="NAME", help="another scheduler, for example euler or dpm++")
    how.add_argument("--steps", type=positive, help="denoising steps (default: the model's)")
    how.add_argument("--guidance", type=finite, metavar="SCALE", help="guidance scale (default: the model's)")
    how.add_argument("--eta", type=share, metavar="ETA", help="fresh noise in each step, 0 to 1 (default: 0)")
    how.add_argument("--negative-prompt", metavar="TEXT", help="what it should not show")
    how.add_argument("--height", type=positive, metavar="PIXELS", help="height of the picture (default: the model's)")
    how.add_argument("--width", type=positive, metavar="PIXELS", help="width of the picture (default: the model's)")

    where = p.add_argument_group("machine and files")
    where.add_argument("--batch-size", type=positive, metavar="B", help="candidates in one model call (default: 8)")
    where.add_argument(
        "--batch-invariant",
        action=argparse.BooleanOptionalAction,
        help="bit-for-bit the same picture at any batch size (default: on the CPU)",
    )
    where.add_argument("--device", default="auto", help="cuda, mps, cpu (default: the best there is)")
    where.add_argument("--dtype", default="auto", help="float32, float16, bfloat16 (default: fits the device)")
    where.add_argument("--offload", default="none", help="none, model or sequential: trade time for GPU memory")
    where.add_argument("--out", type=Path, metavar="FOLDER", help="run folder (default: a new one under runs/)")
    where.add_argument(
        "--json", action="store_true", help="print the result as JSON instead of the best picture's path"
    )
    where.add_argument("--dry-run", action="store_true", help="print what the run would cost and stop")
    return p
