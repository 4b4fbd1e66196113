"""generate-best: arguments become a run, a run becomes files; the work itself is elsewhere.

stdout holds the path of the best picture (or JSON), stderr everything else. Exit status: 0 done, 2 something was asked
that cannot be done (one sentence says what and how to mend it), 130 interrupted (what is finished is kept).
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bon_search.arguments import exit_status
from bon_search.cli_parser import parser
from bon_search.errors import NothingFinished, SearchError, is_users
from bon_search.files import RunFolder, as_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from bon_search.pipeline import BestOfNPipeline
    from bon_search.recipe import Remake
    from bon_search.result import SearchResult
    from bon_search.run import Run
    from rewards import Reward


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    arguments = parser().parse_args(argv)
    return exit_status(lambda: _main(arguments), _say, "what was finished is kept")


def _main(arguments: argparse.Namespace) -> None:
    if arguments.list_searches or arguments.cite:
        from bon_search.listing import bibtex, listing

        print(listing(arguments.search) if arguments.list_searches else bibtex(_search(arguments)))
        return
    from rewards.combine import check_prompt

    remake = _remake(arguments)
    prompts = [remake.recipe.prompt] if remake else _prompts(arguments)
    settings = {} if remake else _settings(arguments)
    folders = [] if arguments.dry_run else _folders(arguments, prompts)
    try:
        pipeline = _load(arguments, remake)
        held_out = _held_out(arguments)
        check_prompt(pipeline.reward, *prompts)  # before the first picture: it may not be one for the last
        for k, prompt in enumerate(prompts):
            _warn(pipeline, prompt)
            run = _start(pipeline, prompt, settings, arguments, remake)
            if arguments.dry_run:
                print(_plan(run))
            else:
                _finish(run, folders[k], arguments, remake, held_out)
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
    from bon_search.asked import note
    from bon_search.pipeline import BATCH, BestOfNPipeline
    from bon_search.plan import USUAL
    from bon_search.process import one_thread, quiet_libraries
    from pipelines import with_scheduler
    from rewards import load_reward
    from rewards.cache import cached

    quiet_libraries()
    recipe = remake.recipe if remake else None
    model = arguments.model or (recipe.model if recipe else "embedded")
    if model == "embedded":
        one_thread()
    invariant = arguments.batch_invariant
    spec = arguments.reward or (recipe.reward if recipe else "llava-reward")
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        pipeline = BestOfNPipeline.from_pretrained(
            model,
            reward=load_reward(spec, calibration=arguments.calibration) if arguments.calibration else spec,
            batch_size=arguments.batch_size or BATCH,
            batch_invariant=recipe.batch_invariant if recipe and invariant is None else invariant,
            device=arguments.device,
            dtype=arguments.dtype if recipe is None or arguments.dtype != "auto" else recipe.dtype,
            offload=arguments.offload,
            lora=arguments.lora or (recipe.lora if recipe else None),
            preview_decoder=arguments.preview_decoder or (recipe.preview_decoder if recipe else None),
        )
    if remark := note(pipeline.reward, spec, most=arguments.n or USUAL):
        _say(remark)
    pipeline.reward = cached(pipeline.reward, arguments.score_cache)
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


def _finish(
    run: Run, folder: RunFolder, arguments: argparse.Namespace, remake: Remake | None, held_out: Sequence[Reward]
) -> None:
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
            result = _judged(result, folder, held_out)
            print(json.dumps(as_json(result), ensure_ascii=False) if arguments.json else best)
    if not result.candidates:
        raise NothingFinished
    if result.report:
        _say(result.report)
    if remake:
        _say(remake.verdict(result))


def _held_out(arguments: argparse.Namespace) -> list[Reward]:
    from rewards import load_reward
    from rewards.cache import cached

    rewards = [load_reward(spec, calibration=arguments.calibration) for spec in arguments.held_out or ()]
    return [cached(reward, arguments.score_cache) for reward in rewards]


def _judged(result: SearchResult, folder: RunFolder, held_out: Sequence[Reward]) -> SearchResult:
    """The result with second opinions, which are told and written; one that fails costs no finished work."""
    from bon_search.opinions import agreement_of, with_opinions

    if not held_out:
        return result
    try:
        result = with_opinions(result, held_out)
    except ValueError as error:
        if not is_users(error):
            raise
        _say(f"no second opinion: {error}")
        return result
    folder.checkpoint(result)
    for opinion in result.opinions:
        _say(opinion.sentence)
    if len(result.opinions) > 1:
        _say(agreement_of(result).table)
    return result


def _plan(run: Run) -> str:
    recipe, cost = run.recipe, run.planned
    back = f", {cost.backwards:g} backward passes" if cost.backwards else ""
    return (
        f"{recipe.prompt}: {recipe.search} with n = {recipe.n} and {recipe.steps} steps, at most {cost.nfe:g} NFE, "
        f"{cost.decodes:g} decodes, {cost.rewards:g} reward calls{back}; "
        f"{recipe.model} on {recipe.device}, {recipe.reward}"
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


if __name__ == "__main__":
    sys.exit(main())
