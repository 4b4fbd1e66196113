"""generate-best: arguments become a run, a run becomes files; the work itself is elsewhere.

stdout holds the path of the best picture (or JSON), stderr everything else. Exit status: 0 done, 2 something was asked
that cannot be done (one sentence says what and how to mend it), 130 interrupted (what is finished is kept).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bon_search.arguments import INTERRUPTED, Parser, above_zero, finite, natural, positive, share
from bon_search.errors import SearchError, is_users
from bon_search.files import RunFolder, as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bon_search.pipeline import BestOfNPipeline
    from bon_search.recipe import Remake
    from bon_search.run import Run


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
    how.add_argument("--lora", metavar="PATH", help="LoRA weights on top of the model")
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


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        _main(arguments)
    except KeyboardInterrupt:
        _say("interrupted; what was finished is kept.")
        return INTERRUPTED
    except ValueError as error:
        if not is_users(error):
            raise
        _say(str(error))
        return 2
    return 0


def _main(arguments: argparse.Namespace) -> None:
    if arguments.list_searches or arguments.cite:
        from bon_search.listing import bibtex, listing

        print(listing() if arguments.list_searches else bibtex(_search(arguments)))
        return
    remake = _remake(arguments)
    prompts = [remake.recipe.prompt] if remake else _prompts(arguments)
    settings = {} if remake else _settings(arguments)
    folders = [] if arguments.dry_run else _folders(arguments, prompts)
    try:
        pipeline = _load(arguments, remake)
        for k, prompt in enumerate(prompts):
            _warn(pipeline, prompt)
            run = _start(pipeline, prompt, settings, arguments, remake)
            if arguments.dry_run:
                print(_plan(run))
            else:
                _finish(run, folders[k], arguments, remake)
    finally:
        for folder in folders:
            folder.discard()


def _remake(arguments: argparse.Namespace) -> Remake | None:
    if arguments.source is None:
        if arguments.candidate is not None:
            raise SearchError("--candidate says which candidate of an earlier run; add --from RESULT.json.")
        return None
    if arguments.prompt or arguments.prompts:
        raise SearchError("--from takes the prompt from the earlier run; leave the prompt away.")
    if arguments.n is not None or arguments.seed is not None:
        raise SearchError("--from makes one candidate with the seed it had; leave --n and --seed away.")
    if arguments.search or arguments.options or arguments.until is not None:
        raise SearchError("--from takes the search from the earlier run; leave --search, -o and --until away.")
    from bon_search.recipe import read_remake

    return read_remake(arguments.source, arguments.candidate or 1)


def _prompts(arguments: argparse.Namespace) -> list[str]:
    if (arguments.prompt is None) == (arguments.prompts is None):
        raise SearchError('Give one prompt ("a red circle left of a blue square") or --prompts FILE.')
    if arguments.prompt is not None:
        return [_readable(arguments.prompt)]
    try:
        lines = arguments.prompts.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise SearchError(f"{arguments.prompts} cannot be read ({error}); give a UTF-8 text file.") from error
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise SearchError(f"{arguments.prompts} holds no prompt; write one a line.")
    return prompts


def _readable(prompt: str) -> str:
    if not prompt.strip():
        raise SearchError("The prompt is empty; say what the picture should show.")
    if any(0xD800 <= ord(character) < 0xE000 for character in prompt):
        raise SearchError(f"The prompt {prompt!r} is no UTF-8; check the encoding of the terminal or script.")
    return prompt


def _folders(arguments: argparse.Namespace, prompts: list[str]) -> list[RunFolder]:
    """Made before the model is loaded: an unwritable place is found out in a second, not after the work."""
    from bon_search.files import slug

    if arguments.out is None:
        return [RunFolder.next_free(Path("runs"), prompt) for prompt in prompts]
    if len(prompts) == 1:
        return [RunFolder.create(arguments.out)]
    return [RunFolder.create(arguments.out / f"{k:04d}-{slug(p)}") for k, p in enumerate(prompts, 1)]


def _load(arguments: argparse.Namespace, remake: Remake | None) -> BestOfNPipeline:
    from bon_search.pipeline import BATCH, BestOfNPipeline
    from bon_search.process import one_thread, quiet_libraries
    from pipelines import with_scheduler

    quiet_libraries()
    recipe = remake.recipe if remake else None
    model = arguments.model or (recipe.model if recipe else "embedded")
    if model == "embedded":
        one_thread()
    invariant = arguments.batch_invariant
    pipeline = BestOfNPipeline.from_pretrained(
        model,
        reward=arguments.reward or (recipe.reward if recipe else "llava-reward"),
        batch_size=arguments.batch_size or BATCH,
        batch_invariant=recipe.batch_invariant if recipe and invariant is None else invariant,
        device=arguments.device,
        dtype=arguments.dtype if recipe is None or arguments.dtype != "auto" else recipe.dtype,
        offload=arguments.offload,
        lora=arguments.lora or (recipe.lora if recipe else None),
    )
    scheduler = arguments.scheduler or (recipe.scheduler if recipe else None)
    if scheduler:
        with_scheduler(pipeline.pipe, scheduler)
    if recipe and recipe.scheduler_config and scheduler == recipe.scheduler:
        pipeline.pipe.scheduler = type(pipeline.pipe.scheduler).from_config(recipe.scheduler_config)
    return pipeline


def _start(
    pipeline: BestOfNPipeline,
    prompt: str,
    settings: dict[str, Any],
    arguments: argparse.Namespace,
    remake: Remake | None,
) -> Run:
    given = {
        "guidance_scale": arguments.guidance,
        "eta": arguments.eta,
        "height": arguments.height,
        "width": arguments.width,
        "negative_prompt": arguments.negative_prompt,
    }
    call: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if remake:
        return pipeline.remake(remake, steps=arguments.steps, **call)
    return pipeline.start(prompt, steps=arguments.steps, **settings, **call)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The search, its options and its budget, as `start` takes them."""
    from bon_search.ledger import Cost
    from bon_search.table import load_search

    search = _search(arguments)
    options = load_search(search).parse(arguments.options or [])
    if arguments.until is not None:
        options["until"] = arguments.until
    limits = {"nfe": arguments.budget_nfe, "seconds": arguments.budget_seconds}
    budget = Cost.at_most(**{name: limit for name, limit in limits.items() if limit is not None})
    return {"search": search, "options": options, "budget": budget, "n": arguments.n, "seed": arguments.seed or 0}


def _search(arguments: argparse.Namespace) -> str:
    if arguments.until is None:
        return arguments.search or "best_of_n"
    if arguments.search not in (None, "best_of_n", "best_of_n_until"):
        raise SearchError(f"--until stops best-of-N, not {arguments.search}; leave --search or --until away.")
    return "best_of_n_until"


def _finish(run: Run, folder: RunFolder, arguments: argparse.Namespace, remake: Remake | None) -> None:
    """Write candidates as they come, then the rest; an interrupt or a fault on the way keeps what is finished."""
    from bon_search.progress import Progress

    try:
        with Progress(run.planned.nfe) as bar:
            run.on_nfe = bar.spent
            for candidate in run:
                folder.add(candidate, run.recipe)
                folder.checkpoint(run.result)
                bar.finished(candidate.score)
    finally:
        result = run.result
        best = folder.finish(result) if result.candidates else None
        if best is not None:
            print(json.dumps(as_json(result), ensure_ascii=False) if arguments.json else best)
    if result.report:
        _say(result.report)
    if remake:
        _say(remake.verdict(result))


def _plan(run: Run) -> str:
    recipe, cost = run.recipe, run.planned
    return (
        f"{recipe.prompt}: {recipe.search} with n = {recipe.n} and {recipe.steps} steps, at most {cost.nfe:g} NFE, "
        f"{cost.decodes:g} decodes, {cost.rewards:g} reward calls; {recipe.model} on {recipe.device}, {recipe.reward}"
    )


def _warn(pipeline: BestOfNPipeline, prompt: str) -> None:
    from pipelines import truncated_prompt

    cut = truncated_prompt(pipeline.pipe, prompt)
    if cut:
        _say(f"warning: the text encoder reads only the beginning of the prompt; it does not see: {cut!r}.")
    if pipeline.model == "embedded":
        from rewards.shapes import unknown_words

        words = unknown_words(prompt)
        if words:
            _say(
                f"warning: the embedded model never learnt {', '.join(words)}: it knows coloured circles, squares, "
                "triangles, stars, hearts and crosses, up to four, and left of, right of, above, below. For anything "
                "else name a real model, for example --model stabilityai/stable-diffusion-xl-base-1.0."
            )


def _say(sentence: str) -> None:
    print(f"generate-best: {sentence}", file=sys.stderr)
