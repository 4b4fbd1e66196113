"""compare-searches: arguments become a grid, its cells are measured one by one, and a report is made of them.

stdout holds the path of the report (or JSON), stderr everything else. Exit status: 0 done, 2 something was asked that
cannot be done (one sentence says what and how to mend it), 130 interrupted (the same command goes on).
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bon_search.arguments import Parser, add_scoring, exit_status, finite, positive
from bon_search.errors import SearchError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from bon_search.compare_grid import Grid
    from bon_search.compare_journal import Cell, Journal, Key
    from bon_search.pipeline import BestOfNPipeline
    from bon_search.result import Recipe
    from rewards import Reward

SEARCHES = ("best_of_n", "halving", "smc:eta=1")
BUDGETS = (4, 8, 16)
OF_A_CELL = ("prompt", "reward", "reward_revision", "search", "n", "seed", "options", "budget", "references")


def parser() -> Parser:
    """All options of compare-searches."""
    p = Parser(
        prog="compare-searches",
        description="Compare searches at equal cost: quality of what they choose, by a judge that took no part.",
        epilog="Example: compare-searches --searches halving smc:eta=1,strength=5 --budgets 4 8 16 32 --out runs/mine",
    )
    what = p.add_argument_group("what to compare")
    what.add_argument(
        "--searches",
        nargs="+",
        default=SEARCHES,
        metavar="SPEC",
        help=f"name or name:option=value,… (default: {' '.join(SEARCHES)}; best_of_n is always there)",
    )
    what.add_argument(
        "--rewards", nargs="+", default=["llava-reward"], metavar="SPEC", help="what chooses (default: llava-reward)"
    )
    what.add_argument(
        "--held-out", default="shapes", metavar="SPEC", help="the judge that takes no part (default: %(default)s)"
    )
    what.add_argument(
        "--passing", type=finite, metavar="SCORE", help="of the judge, from which on a picture passes (shapes: 1)"
    )
    add_scoring(what)
    what.add_argument("--prompts", type=Path, metavar="FILE", help="one prompt a line (default: 24 held-out captions)")
    what.add_argument(
        "--budgets",
        nargs="+",
        type=positive,
        default=BUDGETS,
        metavar="B",
        help=f"(default: {' '.join(map(str, BUDGETS))})",
    )
    what.add_argument("--unit", choices=("images", "nfe"), default="images", help="of the budgets (default: images)")
    what.add_argument(
        "--reach",
        type=positive,
        metavar="B",
        help="price best-of-N's quality at B (default: 16 images, or the largest)",
    )
    what.add_argument("--seeds", type=positive, default=1, metavar="S", help="repetitions for each prompt (default: 1)")

    how = p.add_argument_group("model and machine")
    how.add_argument("--model", default="embedded", help='"embedded" (default), a hub id, a folder or a file')
    how.add_argument("--scheduler", metavar="NAME", help="another scheduler, for example euler or dpm++")
    how.add_argument("--steps", type=positive, help="denoising steps (default: the model's)")
    how.add_argument("--guidance", type=finite, metavar="SCALE", help="guidance scale (default: the model's)")
    how.add_argument(
        "--batch-size", type=positive, default=8, metavar="B", help="candidates in one model call (default: 8)"
    )
    how.add_argument("--device", default="auto", help="cuda, mps, cpu (default: the best there is)")
    how.add_argument("--dtype", default="auto", help="float32, float16, bfloat16 (default: fits the device)")
    how.add_argument("--offload", default="none", help="none, model or sequential: trade time for GPU memory")

    where = p.add_argument_group("files")
    where.add_argument(
        "--out",
        type=Path,
        default=Path("runs/comparison"),
        metavar="FOLDER",
        help="gone on with if begun (default: %(default)s)",
    )
    where.add_argument("--json", action="store_true", help="print the comparison as JSON instead of the report's path")
    where.add_argument("--dry-run", action="store_true", help="print what it would cost at most and stop")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    arguments = parser().parse_args(argv)
    kept = "what was measured is kept: the same command goes on from there"
    return exit_status(lambda: _main(arguments), _say, kept)


def _main(arguments: argparse.Namespace) -> None:
    from bon_search.compare_files import JOURNAL
    from bon_search.compare_grid import contenders, make_grid
    from bon_search.compare_journal import Journal
    from bon_search.compare_prompts import default_prompts, read_prompts
    from rewards.combine import check_prompt

    contenders(arguments.searches)  # cheap refusals before a model is loaded
    _check_judge(arguments)
    prompts = read_prompts(arguments.prompts) if arguments.prompts else default_prompts()
    pipelines, judge = _load(arguments)
    for reward in (*(pipeline.reward for pipeline in pipelines.values()), judge):
        check_prompt(reward, *prompts)
    call = {} if arguments.guidance is None else {"guidance_scale": arguments.guidance}
    recipe = next(iter(pipelines.values())).start(prompts[0], n=1, steps=arguments.steps, **call).recipe
    unit = recipe.steps if arguments.unit == "images" else 1
    budgets = [budget * unit for budget in arguments.budgets]
    grid = make_grid(
        arguments.searches, arguments.rewards, prompts, budgets, seeds=arguments.seeds, steps=recipe.steps, call=call
    )
    if arguments.dry_run:
        print(_plan(grid))
        return
    settings = _settings(recipe, pipelines, arguments.held_out, judge, arguments.batch_size)
    with Journal(arguments.out / JOURNAL, settings) as journal:
        try:
            _measure(grid, pipelines, judge, journal)
        finally:
            _report(grid, journal.cells, settings, arguments, unit)


def _check_judge(arguments: argparse.Namespace) -> None:
    if arguments.held_out in arguments.rewards:
        raise SearchError(
            f"{arguments.held_out} cannot both choose and judge, since what a search gains by fooling it would count "
            "as quality; give --held-out another reward."
        )
    if arguments.reach is not None and arguments.reach not in arguments.budgets:
        raise SearchError(f"--reach {arguments.reach} is none of the budgets {_listed(arguments.budgets)}; choose one.")


def _load(arguments: argparse.Namespace) -> tuple[dict[str, BestOfNPipeline], Reward]:
    """For each reward a wrapper of the one model, and the judge."""
    from bon_search.pipeline import BestOfNPipeline
    from bon_search.process import one_thread, quiet_libraries
    from pipelines import load_pipeline, with_scheduler

    quiet_libraries()
    if arguments.model == "embedded":
        one_thread()
    judge = _reward(arguments.held_out, arguments)  # rewards first: the model may take minutes
    rewards = {spec: _reward(spec, arguments) for spec in arguments.rewards}
    machine = {"device": arguments.device, "dtype": arguments.dtype, "offload": arguments.offload}
    pipe = load_pipeline(arguments.model, **machine)
    if arguments.scheduler:
        with_scheduler(pipe, arguments.scheduler)
    wrappers = {
        spec: BestOfNPipeline(pipe, reward, model=arguments.model, batch_size=arguments.batch_size)
        for spec, reward in rewards.items()
    }
    return wrappers, judge


def _reward(spec: str, arguments: argparse.Namespace) -> Reward:
    from rewards import load_reward
    from rewards.cache import cached

    return cached(load_reward(spec, calibration=arguments.calibration), arguments.score_cache)


def _settings(
    recipe: Recipe, pipelines: Mapping[str, BestOfNPipeline], held_out: str, judge: Reward, batch_size: int
) -> dict[str, Any]:
    """All that a cell's numbers depend on beside its key."""
    own = {name: value for name, value in asdict(recipe).items() if name not in OF_A_CELL}
    revisions = {spec: _revision(pipeline.reward) for spec, pipeline in pipelines.items()}
    judged = {"held_out": held_out, "held_out_revision": _revision(judge)}
    return {**own, "batch_size": batch_size, "rewards": revisions, **judged}


def _revision(reward: Reward) -> str:
    return str(getattr(reward, "revision", ""))


def _measure(grid: Grid, pipelines: Mapping[str, BestOfNPipeline], judge: Reward, journal: Journal) -> None:
    """Measure what is missing, with the NFE done and the time left on stderr."""
    from tqdm import tqdm

    from bon_search.compare import Comparison

    for spec, pipeline in pipelines.items():
        if not pipeline.reward.absolute:
            _say(f"warning: {spec} only ranks, so what it says cannot be compared between searches; trust the judge.")
    missing = [key for key, _ in grid.cells() if key not in journal.cells]
    with tqdm(
        total=sum(key.budget for key in missing), unit="NFE", leave=False, dynamic_ncols=True, smoothing=0
    ) as bar:
        end = 0
        for done, cell in enumerate(Comparison(grid, pipelines, judge, journal, bar.update), 1):
            end += cell.key.budget
            bar.update(end - bar.n)  # what a search leaves of its budget, or a nested one has not to run again
            bar.set_postfix_str(f"{done}/{len(missing)} cells, {cell.key.search}")


def _report(
    grid: Grid, cells: Mapping[Key, Cell], settings: Mapping[str, Any], arguments: argparse.Namespace, unit: int
) -> None:
    """Write what can be said of the prompts that are complete, and say the main of it."""
    from bon_search.compare_files import JSON, REPORT, write_report
    from bon_search.compare_plot import can_plot
    from bon_search.compare_report import Wording, verdicts
    from bon_search.plan import USUAL

    if not grid.complete(cells):
        return
    mark = 1.0 if arguments.held_out == "shapes" else None  # the exact verifier's own
    passing = mark if arguments.passing is None else arguments.passing
    words = Wording(arguments.model, arguments.held_out, grid.steps, grid.seeds, passing)
    usual = USUAL * grid.steps if USUAL * grid.steps in grid.budgets else None
    reach = usual if arguments.reach is None else arguments.reach * unit
    for summary in write_report(arguments.out, grid, cells, settings, words, reach):
        for sentence in verdicts(summary, words):
            _say(sentence)
    if not can_plot():
        _say("no plot, since matplotlib is not installed: pip install matplotlib, then give the same command again.")
    print((arguments.out / JSON).read_text(encoding="utf-8") if arguments.json else arguments.out / REPORT)


def _plan(grid: Grid) -> str:
    return (
        f"{len(grid.contenders)} searches × {len(grid.rewards)} rewards × {len(grid.prompts)} prompts × {grid.seeds} "
        f"seeds × {len(grid.budgets)} budgets: {len(list(grid.cells()))} cells, at most {grid.nfe} NFE"
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _say(sentence: str) -> None:
    print(f"compare-searches: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
