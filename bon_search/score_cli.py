"""score-images: arguments become scores of pictures that exist, ranked on stdout and row by row in a file.

stdout holds the path of the best picture (or the ranked table, or with --inspect what a checkpoint is), stderr
everything else. Exit status: 0 done, 2 nothing could be scored or something was asked that cannot be done (one sentence
says what and how to mend it), 130 interrupted (the rows so far are kept).
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bon_search.arguments import Parser, exit_status, finite, positive, setting
from bon_search.errors import SearchError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from bon_search.score import Failure
    from bon_search.score_jobs import Job
    from bon_search.score_table import Outputs, R, Row, Table
    from rewards import Reward
    from rewards.preferences import Compares


def parser() -> Parser:
    """All options of score-images."""
    p = Parser(
        prog="score-images",
        description="Score, rank and filter pictures that exist with any reward.",
        epilog='Example: score-images pictures --prompt "a red circle left of a blue square" --out scores.csv',
    )
    p.add_argument(
        "source",
        type=Path,
        nargs="?",
        metavar="FOLDER_OR_FILE",
        help="a folder of pictures, one picture, or a .csv or .jsonl list with image and prompt",
    )
    p.add_argument("--reward", default="llava-reward", metavar="SPEC", help="a reward by name (default: %(default)s)")
    p.add_argument("--checkpoint", metavar="FOLDER", help="weights of the reward, for one that takes them")
    p.add_argument(
        "-o", dest="options", type=setting, action="append", default=[], metavar="NAME=VALUE",
        help="an option of the reward, for example base=FOLDER or num_crops=4",
    )  # fmt: skip
    p.add_argument(
        "--inspect",
        metavar="CHECKPOINT",
        help="print what a checkpoint is (a folder, a hub id, or llava-reward:PERSPECTIVE); score nothing",
    )
    p.add_argument(
        "--prompt",
        metavar="TEXT",
        help="what every picture should show (default: of each picture, the .txt beside it or the prompt in the PNG)",
    )
    p.add_argument("--allow-empty", action="store_true", help="score pictures without a prompt against an empty one")
    p.add_argument(
        "--out", type=Path, metavar="FILE", help="write a .csv or .jsonl row by row; one that exists is gone on with"
    )
    p.add_argument("--list-rewards", action="store_true", help="print all rewards with their ranges, and stop")
    p.add_argument("--top", type=positive, metavar="K", help="print the table of the K best")
    p.add_argument("--min", type=finite, metavar="SCORE", dest="least", help="print the table from this score up")
    p.add_argument("--batch-size", type=positive, metavar="B", help="pictures in one call of the reward (default: 16)")
    p.add_argument("--device", default="auto", help="cuda, mps, cpu (default: the reward's own choice)")
    p.add_argument("--json", action="store_true", help="print the ranked table as JSON lines")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    options = parser()
    arguments = options.parse_args(argv)
    if arguments.source is None and arguments.inspect is None and not arguments.list_rewards:
        options.error("the following arguments are required: FOLDER_OR_FILE (or --inspect CHECKPOINT)")
    kept = f"what is scored is kept with {arguments.out}: the same command goes on from there"
    look = partial(_main if arguments.inspect is None else _inspect, arguments)
    work = _list if arguments.list_rewards else look
    return exit_status(work, _say, kept if arguments.out else "bye")


def _main(arguments: argparse.Namespace) -> int:
    """Cheap refusals first: the list and the table are looked at before a reward is loaded."""
    from bon_search.score_jobs import jobs_of
    from bon_search.score_table import Row, Table

    jobs = jobs_of(arguments.source, arguments.prompt, allow_empty=arguments.allow_empty)
    rows: list[Row] = []
    failures: list[Failure] = []
    with Table(arguments.out, Row) as table:
        reward = _load(arguments)
        if not reward.absolute:
            return _compare(jobs, reward, table, arguments)
        try:
            _score(jobs, reward, table, arguments, rows, failures)
        finally:
            _print(rows, arguments)
    return _report(rows, failures, arguments)


def _compare(jobs: list[Job], reward: Reward, table: Table[Row], arguments: argparse.Namespace) -> int:
    """Score by comparison: what the head gives is kept beside the table, which is written when all pictures are there.

    The scores of a prompt take the place of those that the same reward gave earlier, in other company.
    """
    from bon_search.score_table import Outputs, Table
    from bon_search.tournament import standings

    entries: list[Outputs] = []
    failures: list[Failure] = []
    rows: list[Row] = []
    with Table(arguments.out and arguments.out.with_suffix(".outputs.jsonl"), Outputs) as outputs:
        try:
            _score(jobs, reward, outputs, arguments, entries, failures)
        finally:
            tournaments = standings(entries, cast("Compares", reward))
            rows = [row for tournament in tournaments for row in tournament.rows]
            _print(rows, arguments)
        judged = {(row.reward, row.revision, row.prompt) for row in rows}
        table.replace(rows, lambda row: (row.reward, row.revision, row.prompt) in judged)
    _say(
        "this reward only compares: a score is the mean probability of being preferred to the other pictures of the "
        "same prompt, so it changes with them."
    )
    for report in filter(None, (tournament.report for tournament in tournaments)):
        _say(report)
    return _report(rows, failures, arguments)


def _list() -> int:
    from rewards.catalogue import listing

    print(listing(), flush=True)
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    """Print what a checkpoint is, from its files alone."""
    if arguments.source is not None:
        raise SearchError(
            f"Got --inspect, which scores nothing, and pictures to score ({arguments.source}); give one of the two."
        )
    _quiet()
    from rewards.llava.describe import describe
    from rewards.llava.hub import REPOSITORY

    print(describe(arguments.inspect, arguments.checkpoint or REPOSITORY))
    return 0


def _load(arguments: argparse.Namespace) -> Reward:
    from bon_search.process import one_thread

    options: dict[str, Any] = dict(arguments.options)
    if arguments.checkpoint is not None:
        options["checkpoint"] = arguments.checkpoint
    elif arguments.reward == "llava-reward":
        one_thread()  # the embedded one
    _quiet()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        reward = _loaded(arguments, options)
    for warning in warned:
        _say(f"warning: {warning.message}")
    return reward


def _loaded(arguments: argparse.Namespace, options: dict[str, Any]) -> Reward:
    """The reward, with the device and the leave for empty prompts that were asked for, if it has a choice of them."""
    from rewards import load_reward
    from rewards.errors import UnknownRewardError

    wishes: dict[str, Any] = {} if arguments.device == "auto" else {"device": arguments.device}
    wishes |= {"allow_empty": True} if arguments.allow_empty else {}
    while True:
        try:
            return load_reward(arguments.reward, **options, **wishes)
        except UnknownRewardError:  # one without a choice of device is on the CPU anyway, one may not read prompts
            if wishes.get("device") == "cpu":
                wishes.pop("device")
            elif wishes.pop("allow_empty", None) is None:
                raise


def _score(
    jobs: list[Job],
    reward: Reward,
    table: Table[R],
    arguments: argparse.Namespace,
    rows: list[R],
    failures: list[Failure],
) -> None:
    """Fill `rows` and `failures` as outcomes come, so that an interrupt finds what there is."""
    from tqdm import tqdm

    from bon_search.score import BATCH, Failure, score_pictures

    given = score_pictures(
        jobs,
        reward,
        spec=" ".join([arguments.reward, *(f"{name}={value}" for name, value in sorted(arguments.options))]),
        batch_size=arguments.batch_size or BATCH,
        known=table.rows,
        allow_empty=arguments.allow_empty,
    )
    with tqdm(total=len(jobs), unit="picture", leave=False, dynamic_ncols=True, smoothing=0) as bar:
        for outcome in given:
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                row = cast("R", outcome)
                bar.initial += row.key in table.rows  # scored earlier: does not count for rate and time left
                table.add(row)
                rows.append(row)
            bar.update()


def _print(rows: list[Row], arguments: argparse.Namespace) -> None:
    from bon_search.score import ranked
    from bon_search.score_table import as_json_line

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name need not be UTF-8
    table = ranked(rows, top=arguments.top, least=arguments.least)
    if arguments.json:
        for rank, row in enumerate(table, 1):
            print(as_json_line({"rank": rank, **asdict(row)}))
    elif arguments.top is not None or arguments.least is not None:
        for row in table:
            print(f"{row.score:.6g}\t{row.image}")
    elif table:
        print(table[0].image)
    sys.stdout.flush()


def _report(rows: list[Row], failures: list[Failure], arguments: argparse.Namespace) -> int:
    """Say on stderr what has no score and why; returns the exit status."""
    reasons = {failure.reason for failure in failures}
    if not rows and len(failures) > 1 and len(reasons) == 1:
        _say(f"none of the {len(failures)} pictures has a score; each {reasons.pop()}")
        return 2
    if rows and failures:
        _say(f"{len(failures)} of {len(rows) + len(failures)} pictures have no score:")
    for failure in failures:
        _say(f"{failure.image} {failure.reason}")
    if rows and arguments.least is not None and max(row.score for row in rows) < arguments.least:
        _say(f"no picture reaches {arguments.least:g}; the best has {max(row.score for row in rows):.6g}.")
    _warn(rows, arguments)
    return 0 if rows else 2


def _warn(rows: list[Row], arguments: argparse.Namespace) -> None:
    prompts = {row.prompt for row in rows}
    if len(prompts) > 1:
        _say(f"warning: the pictures have {len(prompts)} prompts; scores compare best within one.")
    if arguments.reward == "llava-reward" and arguments.checkpoint is None:
        from rewards.shapes import unknown_words

        words = sorted({word for prompt in prompts for word in unknown_words(prompt)})
        if words:
            _say(
                f"warning: the embedded reward never learnt {', '.join(words[:8])}: it knows coloured shapes, up to "
                "four; for anything else give --checkpoint or another --reward."
            )


def _quiet() -> None:
    """Only errors of transformers, if the reward is going to use it; set where it looks on import."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _say(sentence: str) -> None:
    print(f"score-images: {sentence}", file=sys.stderr)
