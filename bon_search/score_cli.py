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
from typing import TYPE_CHECKING

from bon_search.arguments import exit_status
from bon_search.errors import SearchError
from bon_search.score_parser import parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from bon_search.asked import Wishes
    from bon_search.score_jobs import Job
    from bon_search.score_session import Column
    from rewards import Reward

DEFAULT = "llava-reward"


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
    """Cheap refusals first: the list, the table and the rewards' names are looked at before one is loaded."""
    from bon_search.asked import check_places, label
    from bon_search.score import BATCH
    from bon_search.score_jobs import jobs_of
    from bon_search.score_session import Column, Session
    from bon_search.score_table import Row, Table

    jobs = jobs_of(arguments.source, arguments.prompt, allow_empty=arguments.allow_empty)
    columns: list[Column] = []
    with Table(arguments.out, Row) as table:
        asked = _asked(arguments)
        check_places(asked)
        session = Session(jobs, table, arguments.batch_size or BATCH, arguments.allow_empty)
        try:
            for spec, wishes in asked.items():
                reward = _load(spec, wishes, arguments, jobs)
                columns.append(Column(spec))
                own = {name: value for name, value in wishes.options.items() if name in dict(arguments.options)}
                session.fill(columns[-1], reward, label(spec, own))
        finally:
            if columns:
                _print(columns, arguments)
    status = max(_report(column, len(columns) > 1, arguments) for column in columns)
    _compare(columns, arguments)
    return status


def _asked(arguments: argparse.Namespace) -> dict[str, Wishes]:
    """The rewards that were asked for, each once, and what was said of each."""
    from bon_search.asked import Wishes, check_names, shares
    from rewards.calibration import check_calibration

    options = dict(arguments.options) | ({"checkpoint": arguments.checkpoint} if arguments.checkpoint else {})
    wishes = Wishes(options, arguments.device, arguments.allow_empty, arguments.calibration)
    asked = shares(list(dict.fromkeys(arguments.reward or [DEFAULT])), wishes)
    if arguments.write_calibration:
        check_names(list(asked))
        check_calibration(arguments.write_calibration)
    return asked


def _compare(columns: Sequence[Column], arguments: argparse.Namespace) -> None:
    """Say how far several rewards agree, and write how far the scores of each lie apart."""
    from bon_search.score_session import compared, deviations
    from rewards.calibration import write_calibration

    if len(columns) > 1 and all(column.rows for column in columns):
        _say(compared(columns).table)
    if arguments.write_calibration:
        write_calibration(deviations(columns), arguments.write_calibration)
        _say(
            f"the deviations are in {arguments.write_calibration}; give it as --calibration where a sum is the reward."
        )


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


def _load(spec: str, wishes: Wishes, arguments: argparse.Namespace, jobs: Sequence[Job]) -> Reward:
    from bon_search.asked import is_embedded, load, note
    from bon_search.process import one_thread
    from rewards.cache import cached

    if arguments.checkpoint is None and is_embedded(spec):
        one_thread()
    _quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        reward = load(spec, wishes)
    if remark := note(reward, spec, most=len(jobs)):
        _say(remark)
    return cached(reward, arguments.score_cache)


def _print(columns: Sequence[Column], arguments: argparse.Namespace) -> None:
    """The ranking by the first reward, with the scores of the others beside it; as JSON that of each reward in turn."""
    from bon_search.score import ranked
    from bon_search.score_table import as_json_line

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name need not be UTF-8
    tables = [ranked(column.rows, top=arguments.top, least=arguments.least) for column in columns]
    if arguments.json:
        for rank, row in ((rank, row) for table in tables for rank, row in enumerate(table, 1)):
            print(as_json_line({"rank": rank, **asdict(row)}))
    elif arguments.top is not None or arguments.least is not None:
        others = [{(row.image, row.prompt): f"{row.score:.6g}" for row in column.rows} for column in columns[1:]]
        for row in tables[0]:
            beside = [other.get((row.image, row.prompt), "-") for other in others]
            print("\t".join([f"{row.score:.6g}", *beside, row.image]))
    elif tables[0]:
        print(tables[0][0].image)
    sys.stdout.flush()


def _report(column: Column, several: bool, arguments: argparse.Namespace) -> int:
    """Say on stderr what has no score and why, and what the scores are; returns the exit status."""
    rows, failures = column.rows, column.failures
    by = f"{column.spec}: " if several else ""
    reasons = {failure.reason for failure in failures}
    if not rows and len(failures) > 1 and len(reasons) == 1:
        _say(f"{by}none of the {len(failures)} pictures has a score; each {reasons.pop()}")
        return 2
    for remark in column.remarks:
        _say(remark)
    if rows and failures:
        _say(f"{by}{len(failures)} of {len(rows) + len(failures)} pictures have no score:")
    for failure in failures:
        _say(f"{by}{failure.image} {failure.reason}")
    if rows and arguments.least is not None and max(row.score for row in rows) < arguments.least:
        _say(f"{by}no picture reaches {arguments.least:g}; the best has {max(row.score for row in rows):.6g}.")
    _warn(column, arguments)
    return 0 if rows else 2


def _warn(column: Column, arguments: argparse.Namespace) -> None:
    from bon_search.asked import is_embedded

    prompts = {row.prompt for row in column.rows}
    if len(prompts) > 1:
        _say(f"warning: the pictures have {len(prompts)} prompts; scores compare best within one.")
    if arguments.checkpoint is None and is_embedded(column.spec):
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


if __name__ == "__main__":
    sys.exit(main())
