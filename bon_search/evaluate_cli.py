"""evaluate-reward: how well rewards agree with preferences, ratings and labels of people, side by side.

stdout holds the report, stderr everything else; --json writes the numbers, the report beside them, plots if matplotlib
is installed, and every score as it comes, so that the same command goes on after an interrupt and scores nothing twice.
Exit status: 0 done, 2 something was asked that cannot be done (one sentence says what and how to mend it), 130
interrupted.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bon_search.arguments import Parser, above_zero, add_scoring, exit_status, finite, natural, positive, setting
from bon_search.errors import SearchError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from bon_search.asked import Wishes
    from bon_search.evaluate_scores import Scored
    from bon_search.score import Failure
    from rewards.evaluation.evaluation import Difference, Evaluation
    from rewards.evaluation.records import Data

FORMATS = (
    "auto", "own", "mj-bench", "imagereward", "hpdv2", "pick-a-pic", "tifa160", "unsafebench", "smid", "genai-bench",
    "genai-arena",
)  # fmt: skip
BATCH = 16
NAMED = 20  # of what is left out on stderr; the JSON names all


def parser() -> Parser:
    """All options of evaluate-reward."""
    p = Parser(
        prog="evaluate-reward",
        description="Compare rewards with people: accuracy on preferences, calibration, correlation, classification.",
        epilog="Example: evaluate-reward --reward llava-reward --reward clipscore --data pairs.jsonl --json out.json",
    )
    what = p.add_argument_group("what to evaluate")
    what.add_argument(
        "--reward",
        action="append",
        metavar="SPEC",
        help="a reward by name, or NAME@CHECKPOINT; once for each (default: llava-reward)",
    )
    what.add_argument(
        "--checkpoint", metavar="FOLDER", help="weights of every reward that takes some and names none with an @"
    )
    what.add_argument(
        "-o", dest="options", type=setting, action="append", default=[], metavar="NAME=VALUE",
        help="an option of the rewards, for example base=FOLDER",
    )  # fmt: skip
    add_scoring(what)
    what.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FILE",
        help="pairs, ratings or labels; a file, a folder of them, or of parquet files there FOLDER/SPLIT",
    )
    what.add_argument("--format", choices=FORMATS, default="auto", help="the layout of the data (default: %(default)s)")
    what.add_argument("--images", type=Path, metavar="FOLDER", help="where pictures lie, if not where the layout says")
    what.add_argument("--skip-bad", action="store_true", help="leave records out that cannot be used")
    what.add_argument("--allow-empty", action="store_true", help="score pictures that have no prompt, too")

    how = p.add_argument_group("how to count")
    how.add_argument(
        "--tau", type=above_zero, metavar="T", help="sigmoid(difference / T) is a probability (default: the reward's)"
    )
    how.add_argument(
        "--bfloat16", action="store_true", help="round as the published evaluation of LLaVA-Reward, which makes ties"
    )
    how.add_argument(
        "--threshold", type=finite, default=0.0, metavar="S", help="call a label positive from this score (default: 0)"
    )
    how.add_argument("--seed", type=natural, default=0, help="of the bootstrap (default: 0)")

    where = p.add_argument_group("machine and files")
    where.add_argument("--batch-size", type=positive, default=BATCH, metavar="B", help=f"(default: {BATCH})")
    where.add_argument("--device", default="auto", help="cuda, mps, cpu (default: the reward's own choice)")
    where.add_argument("--json", type=Path, metavar="OUT", help="write the numbers, and the report beside them")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    arguments = parser().parse_args(argv)
    kept = "what is scored is kept: the same command goes on from there" if arguments.json else "bye"
    return exit_status(lambda: _main(arguments), _say, kept)


def _main(arguments: argparse.Namespace) -> None:
    from bon_search.asked import check_places, is_embedded
    from bon_search.process import one_thread
    from rewards.evaluation.evaluation import differences, evaluate

    asked = _asked(arguments)
    check_places(asked)
    data, layout = _data(arguments)
    if any(map(is_embedded, asked)):
        one_thread()  # the embedded one
    scored, failures = _scored(asked, data, arguments)
    there = data.known([side for side in data.sides if all(side in each.outputs for each in scored)])
    if not there.sides:
        raise SearchError(_nothing(failures))
    found = [each.judged(there, tau=arguments.tau, bfloat16=arguments.bfloat16) for each in scored]
    evaluations = [evaluate(each, there, threshold=arguments.threshold, seed=arguments.seed) for each in found]
    skipped = {failure.image: failure.reason for failure in failures}
    about: dict[str, object] = {
        "data": str(arguments.data), "data_sha256": _digest(arguments.data), "format": layout,
        "pairs_left_out": len(data.preferences) - len(there.preferences),
        "pictures_left_out": len(data.opinions) - len(there.opinions), "skipped": skipped,
        "revisions": {each.spec: each.revision for each in scored},
    }  # fmt: skip
    report = _write(arguments.json, about, evaluations, differences(found, there, seed=arguments.seed), skipped)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name need not be UTF-8
    sys.stdout.write(report)
    sys.stdout.flush()


def _asked(arguments: argparse.Namespace) -> dict[str, Wishes]:
    """The rewards, each once, with their checkpoints, and what was said of each; faults are found before loading."""
    from bon_search.asked import Wishes, shares
    from rewards.registry import takes

    named = arguments.reward or ["llava-reward"]
    common = f"@{arguments.checkpoint}" if arguments.checkpoint else ""
    able = [spec for spec in named if takes(spec, "checkpoint")] or named
    specs = dict.fromkeys(spec + common if spec in able and "@" not in spec else spec for spec in named)
    wishes = Wishes(dict(arguments.options), arguments.device, arguments.allow_empty, arguments.calibration)
    return shares(list(specs), wishes)


def _data(arguments: argparse.Namespace) -> tuple[Data, str]:
    """The data with all its pairs, and its layout; faults are told or, unless they may be skipped, refused."""
    from rewards.evaluation.readers import read
    from rewards.evaluation.records import with_pairs

    data, faults, layout = read(arguments.data, arguments.format, arguments.images)
    if faults and not arguments.skip_bad:
        more = f" ({len(faults)} records cannot be used; --skip-bad leaves them out)"
        raise SearchError(f"{faults[0]}{more}.")
    _told(faults)
    if not data.sides:
        raise SearchError(f"{arguments.data} holds no preference, rating or label that can be used; give other data.")
    return with_pairs(data), layout


def _told(left_out: Sequence[object]) -> None:
    for each in left_out[:NAMED]:
        _say(f"left out: {each}")
    if len(left_out) > NAMED:
        _say(f"left out: {len(left_out) - NAMED} more.")


def _scored(
    asked: Mapping[str, Wishes], data: Data, arguments: argparse.Namespace
) -> tuple[list[Scored], list[Failure]]:
    """Scores of every reward, one in memory after the other, and the pictures that one of them could not score."""
    from tqdm import tqdm

    from bon_search.asked import label, load, note
    from bon_search.evaluate_scores import score

    all_of: list[Scored] = []
    failures: list[Failure] = []
    for spec, wishes in asked.items():
        reward = load(spec, wishes)
        if remark := note(reward, spec, most=0):
            _say(remark)
        with tqdm(total=len(data.sides), desc=spec, unit="picture", leave=False, dynamic_ncols=True) as bar:
            scored, failed = score(
                data.sides, reward, spec, arguments.json and _base(arguments.json), kept_as=label(spec, wishes.options),
                cache=arguments.score_cache, batch_size=arguments.batch_size, seen=bar.update,
            )  # fmt: skip
        all_of.append(scored)
        failures += failed
    _told([f"{image} {why}" for image, why in {each.image: each.reason for each in failures}.items()])
    return all_of, failures


def _write(
    out: Path | None,
    about: Mapping[str, object],
    evaluations: Sequence[Evaluation],
    found: Sequence[Difference],
    skipped: Mapping[str, str],
) -> str:
    """Write JSON, plots and report, if anywhere; returns the report."""
    from bon_search.compare_plot import can_plot
    from bon_search.evaluate_plot import plot
    from bon_search.evaluate_report import as_markdown
    from rewards.evaluation.evaluation import as_json

    title = f"Evaluation on {Path(str(about['data'])).name}"
    plots = [path.name for path in plot(evaluations, _base(out))] if out and can_plot() else []
    report = as_markdown(title, evaluations, found, skipped, plots)
    if out:
        _put(_base(out).with_name(f"{_base(out).name}.md"), report)
        _put(out, json.dumps(as_json(about, evaluations, found), indent=1, ensure_ascii=False) + "\n")
    return report


def _put(path: Path, content: str) -> None:
    """Write a file; under its name only when it is whole."""
    from bon_search.files import reason

    part = path.with_name(path.name + ".part")
    try:
        part.write_text(content, encoding="utf-8", errors="surrogateescape")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SearchError(
            f"{path} cannot be written ({reason(error)}); free some space and give the same command again: nothing is "
            "scored twice."
        ) from error


def _base(out: Path) -> Path:
    """The beginning of the names of all files beside the numbers."""
    return out.with_suffix("") if out.suffix.lower() == ".json" else out


def _digest(data: Path) -> str | None:
    """Hash of the file, for records; None of a folder."""
    return hashlib.sha256(data.read_bytes()).hexdigest() if data.is_file() else None


def _nothing(failures: Sequence[Failure]) -> str:
    first = f": {failures[0].image} {failures[0].reason}" if failures else ""
    return f"None of the pictures could be scored{first}"


def _say(sentence: str) -> None:
    print(f"evaluate-reward: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
