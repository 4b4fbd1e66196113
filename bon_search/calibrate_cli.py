"""calibrate-search: measure once how early a model's previews tell the winner; write what pruned searches need.

stdout holds what was found, in two sentences; stderr the progress. Exit status as that of generate-best.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bon_search.arguments import Parser, exit_status, natural, positive
from bon_search.errors import SearchError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from bon_search.calibrate import Previews
    from bon_search.pipeline import BestOfNPipeline

SCHEDULE, FORECAST = "schedule.json", "forecast.json"


def parser() -> Parser:
    """All options of calibrate-search."""
    p = Parser(
        prog="calibrate-search",
        description="Finish candidates of some prompts, score them on the way, and find the pruning that pays.",
        epilog='Then: generate-best --search pandora -o forecast=calibration/forecast.json "…", or --search halving -o '
        "schedule=calibration/schedule.json.",
    )
    p.add_argument("--prompts", type=Path, metavar="FILE", help="one a line, of the kind you will use (default: 48)")
    p.add_argument("--n", type=positive, default=64, help="candidates per prompt (default: 64)")
    p.add_argument("--target", type=positive, default=16, metavar="N", help="reach best-of-N's quality (default: 16)")
    p.add_argument("--seed", type=natural, default=0, help="candidate k starts from seed + k (default: 0)")
    p.add_argument(
        "--model", default="embedded", help='"embedded" (default), a hub id, a folder or a .safetensors file'
    )
    p.add_argument("--reward", default="llava-reward", help='what will choose (default: "llava-reward")')
    p.add_argument("--steps", type=positive, help="denoising steps (default: the model's)")
    p.add_argument("--batch-size", type=positive, metavar="B", default=8, help="in one model call (default: 8)")
    p.add_argument("--device", default="auto", help="cuda, mps, cpu (default: the best there is)")
    p.add_argument("--dtype", default="auto", help="float32, float16, bfloat16 (default: fits the device)")
    p.add_argument("--out", type=Path, default=Path("calibration"), metavar="FOLDER", help="default: calibration")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    arguments = parser().parse_args(argv)
    return exit_status(lambda: _main(arguments), _say, "nothing is written before all is measured")


def _main(arguments: argparse.Namespace) -> None:
    from bon_search.calibrate import calibrate
    from bon_search.compare_prompts import read_prompts
    from bon_search.files import reason
    from bon_search.pipeline import BestOfNPipeline
    from bon_search.process import one_thread, quiet_libraries
    from bon_search.replay import calibrate_forecast

    quiet_libraries()
    if arguments.model == "embedded":
        one_thread()
    if arguments.n < 4 * arguments.target:
        raise SearchError(
            f"To compare with best-of-{arguments.target}, each prompt needs {4 * arguments.target} candidates; raise "
            "--n, or lower --target."
        )
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SearchError(f"{arguments.out} cannot be made ({reason(error)}); choose another with --out.") from error
    prompts = read_prompts(arguments.prompts) if arguments.prompts else _prompts(arguments.model)
    pipeline = BestOfNPipeline.from_pretrained(
        arguments.model,
        reward=arguments.reward,
        batch_size=arguments.batch_size,
        device=arguments.device,
        dtype=arguments.dtype,
    )
    previews = _measured(pipeline, prompts, arguments)
    found = calibrate(previews, target=arguments.target, seed=arguments.seed)
    found.save(arguments.out / SCHEDULE)
    print(found.verdict)
    forecast, ratio = calibrate_forecast(previews, target=arguments.target, seed=arguments.seed)
    forecast.save(arguments.out / FORECAST)
    print(f"pandora reaches the quality of best-of-{arguments.target} at {ratio:.0%} of its cost, on unseen prompts.")


def _measured(pipeline: BestOfNPipeline, prompts: list[str], arguments: argparse.Namespace) -> Previews:
    from bon_search.calibrate import measure
    from bon_search.progress import Progress

    def spent(nfe: int) -> None:
        bar.spent(nfe)

    problems = [pipeline.problem(prompt, steps=arguments.steps, on_nfe=spent) for prompt in prompts]
    with Progress(sum(sampler.steps for sampler, _ in problems) * arguments.n) as bar:
        return measure(problems, n=arguments.n, seed=arguments.seed)


def _prompts(model: str) -> list[str]:
    """48 sentences of the shapes world, eight of each skill, for the embedded model."""
    from rewards.shapes.scenes import prompt_set

    if model != "embedded":
        raise SearchError("The default prompts are for the embedded model; give --prompts FILE, of the kind you use.")
    return [spec.prompt for spec in prompt_set(8, seed=4, split="test")]


def _say(sentence: str) -> None:
    print(f"calibrate-search: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
