"""train-reward: preferences become a LLaVA-Reward of one's own.

stdout holds the folder of the checkpoint (or with --check-data how many records are good), stderr everything else. Exit
status: 0 done, 2 the data has faults or something was asked that cannot be done, 130 interrupted (the same command with
--resume goes on).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bon_search.arguments import Parser, above_zero, exit_status, finite, natural, positive, share
from bon_search.process import one_thread

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rewards import Reward
    from rewards.llava.official import Official
    from rewards.training.checks import Report as Checked
    from rewards.training.loop import Report
    from rewards.training.records import Fault, Record
    from rewards.training.run import Run
    from rewards.training.settings import Settings

SHOWN = 20  # faults before a training; the rest is counted, and --check-data lists all


def parser() -> Parser:
    """All options of train-reward."""
    p = Parser(
        prog="train-reward",
        description="Train a LLaVA-Reward on preferences; the checkpoint is one that every other command loads.",
        epilog="Example: train-reward --data pairs.jsonl --base embedded --loss bt --out rewards/mine",
    )
    _data(p)
    _model(p)
    _optimisation(p)
    return p


def _data(p: Parser) -> None:
    p.add_argument(
        "--data", type=Path, nargs="+", action="extend", required=True, metavar="FILE",
        help="records: .json, .jsonl, .csv, a folder of datasets, or with --judge or --picks of generate-best runs",
    )  # fmt: skip
    p.add_argument("--images", type=Path, metavar="FOLDER", help="where paths of pictures begin (default: the file's)")
    p.add_argument("--test", type=Path, metavar="FILE", help="records that are judged at the end and shared with none")
    p.add_argument("--check-data", action="store_true", help="list what is wrong with the data; train nothing")
    p.add_argument("--skip-bad", action="store_true", help="train on the records that nothing is wrong with")
    p.add_argument("--allow-empty", action="store_true", help="take prompts without a word")
    p.add_argument("--judge", metavar="SPEC", help="a reward that tells candidates of runs apart, for example shapes")
    p.add_argument(
        "--picks", type=Path, metavar="FILE", help=".csv or .jsonl of run and pick: candidates that you like"
    )
    p.add_argument("--gap", type=finite, default=0.0, help="of the judge's scores that a pair must exceed (default: 0)")
    p.add_argument("--per-run", type=positive, default=4, metavar="K", help="pairs of a run, at most (default: 4)")
    p.add_argument(
        "--mismatched", type=share, default=0.0, metavar="SHARE",
        help="add so many pairs of a picture with its own and another's prompt, as a share of the data (default: 0)",
    )  # fmt: skip
    p.add_argument("--write-pairs", type=Path, metavar="FILE", help="write the records as .jsonl; train nothing")


def _model(p: Parser) -> None:
    p.add_argument("--base", metavar="FOLDER_OR_ID", help="base model: a folder, a hub id, or embedded")
    p.add_argument(
        "--init", metavar="CHECKPOINT", help="go on from a checkpoint: same base and head, and same rank unless --full"
    )
    p.add_argument("--out", type=Path, metavar="FOLDER", help="where the checkpoint goes")
    p.add_argument("--loss", choices=("bt", "gpm", "cls"), default="bt", help="of pairs (default: %(default)s)")
    p.add_argument("--dim", type=positive, default=2, help="outputs of a general preference (default: %(default)s)")
    p.add_argument("--tau", type=above_zero, default=0.1, help="temperature (default: %(default)s)")
    p.add_argument("--margin", type=finite, default=0.0, help="that a chosen side should be ahead (default: 0)")
    p.add_argument("--label-weight", type=above_zero, default=1.0, help="of a label beside a pair (default: 1)")
    p.add_argument("--no-skipca", action="store_true", help="a head that does not look back at the picture")
    p.add_argument("--full", action="store_true", help="train the language model's own weights, no low-rank matrices")
    p.add_argument("--lora-rank", type=positive, default=128, help="default: %(default)s")
    p.add_argument("--lora-alpha", type=above_zero, metavar="ALPHA", help="default: twice the rank")
    p.add_argument("--lora-dropout", type=share, default=0.05, metavar="SHARE", help="default: %(default)s")
    p.add_argument(
        "--lora-only", action="store_true", help="leave head, SkipCA and projector as they are, as published"
    )
    p.add_argument("--no-projector", action="store_true", help="leave the projector as it is")
    p.add_argument("--tower", action="store_true", help="train the vision tower too, in the same way")
    p.add_argument("--num-crops", type=positive, default=16, help="of a picture, for Phi (default: %(default)s)")


def _optimisation(p: Parser) -> None:
    length = p.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=above_zero, default=1.0, help="times through the data (default: 1)")
    length.add_argument("--steps", type=positive, help="of the optimizer, instead of --epochs")
    p.add_argument("--batch-size", type=positive, default=16, help="records per step, in all (default: %(default)s)")
    p.add_argument("--micro", type=positive, default=4, help="records in one pass, at most (default: %(default)s)")
    p.add_argument("--rate", type=above_zero, default=2e-4, help="highest learning rate (default: %(default)s)")
    p.add_argument("--warmup", type=share, default=0.03, help="share of the steps (default: %(default)s)")
    p.add_argument("--clip", type=above_zero, default=1.0, help="norm of the gradient (default: %(default)s)")
    p.add_argument("--weight-decay", type=finite, default=0.0, help="default: 0")
    p.add_argument("--bf16", action="store_true", help="run frozen weights in bfloat16; trained ones stay float32")
    p.add_argument("--checkpointing", action="store_true", help="less memory, a third more time")
    p.add_argument("--seed", type=natural, default=42, help="default: %(default)s")
    p.add_argument("--resume", action="store_true", help="go on with the training in --out, if there is one")
    p.add_argument("--save-every", type=positive, default=100, metavar="STEPS", help="default: %(default)s")
    p.add_argument(
        "--keep",
        type=natural,
        default=1024,
        metavar="MIB",
        help="of pictures that stay in memory (default: %(default)s)",
    )
    p.add_argument(
        "--tracker", metavar="NAME", help="of accelerate, such as wandb, or none (default: tensorboard if installed)"
    )
    p.add_argument("--shard", action="store_true", help="share the weights out among the processes (FSDP)")
    p.add_argument("--cpu", action="store_true", help="never take a GPU")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    options = parser()
    arguments = options.parse_args(argv)
    listing = arguments.check_data or arguments.write_pairs
    missing = [name for name in ("base", "out") if getattr(arguments, name) is None and not listing]
    if missing:
        options.error(f"the following arguments are required: --{missing[0]} (or --check-data)")
    kept = f"the same command with --resume goes on with {arguments.out}"
    return exit_status(lambda: _main(arguments), _say, kept)


def _main(arguments: argparse.Namespace) -> int:
    from rewards.training.run import Run, check_done, is_done

    settings = _settings(arguments)
    checked, test = _checked(arguments)
    _list(checked.faults, len(checked.faults) if arguments.check_data else SHOWN)
    if arguments.check_data:
        print(f"{len(checked.good)} good records, {len(checked.faults)} faults")
        return 2 if checked.faults else 0
    if checked.faults and not arguments.skip_bad:
        _say("nothing was trained; mend the data, or leave such records out with --skip-bad.")
        return 2
    records = _with_mismatched(checked.good, arguments)
    if arguments.write_pairs:
        return _write(records, arguments.write_pairs)
    run = Run(
        records, arguments.base, arguments.out, settings, test=test, start=_start(arguments.init),
        save_every=arguments.save_every, cpu=arguments.cpu, keep=arguments.keep << 20,
        shard=arguments.shard, tracker=arguments.tracker,
    )  # fmt: skip
    if arguments.base == "embedded":
        one_thread()
    if arguments.resume and is_done(arguments.out):
        check_done(run)
        _say("the training is finished already.")
    else:
        _train(run, resume=arguments.resume)
        _say_tested(arguments.out)
    if _is_first():
        print(arguments.out)
    return 0


def _say_tested(out: Path) -> None:
    """How the test records were told, if there are any."""
    from rewards.training.run import DONE

    test = json.loads((out / DONE).read_text(encoding="utf-8")).get("test") if (out / DONE).is_file() else None
    if test:
        _say(f"{100 * test['accuracy']:.1f} % of the {test['n']} test records are told right.")


def _settings(arguments: argparse.Namespace) -> Settings:
    from rewards.training.settings import Settings

    rank = arguments.lora_rank
    return Settings(
        loss=arguments.loss, dim=arguments.dim, tau=arguments.tau, margin=arguments.margin,
        label_weight=arguments.label_weight, skipca=not arguments.no_skipca, rank=rank,
        alpha=arguments.lora_alpha or 2.0 * rank, dropout=arguments.lora_dropout, full=arguments.full,
        lora_only=arguments.lora_only,
        projector=not arguments.no_projector, tower=arguments.tower, steps=arguments.steps or 0,
        epochs=arguments.epochs, batch=arguments.batch_size, micro=arguments.micro, rate=arguments.rate,
        warmup=arguments.warmup, clip=arguments.clip, decay=arguments.weight_decay, bfloat16=arguments.bf16,
        checkpointing=arguments.checkpointing, num_crops=arguments.num_crops, seed=arguments.seed,
    )  # fmt: skip


def _checked(arguments: argparse.Namespace) -> tuple[Checked, list[Record]]:
    """What is good and bad about the data, and the test records; a test that is bad itself is an error."""
    from rewards.errors import RewardError
    from rewards.training.checks import check_records
    from rewards.training.records import read_records

    records: list[Record] = []
    faults: list[Fault] = []
    for path in arguments.data:
        read, wrong = _read(path, arguments)
        records += read
        faults += wrong
    if arguments.test is None:
        return check_records(records, faults=faults, allow_empty=arguments.allow_empty), []
    read, wrong = read_records(arguments.test, arguments.images)
    test = check_records(read, faults=wrong, allow_empty=arguments.allow_empty)
    if test.faults and arguments.check_data:
        faults = [*test.faults, *faults]
        return check_records(records, faults=faults, test=test.good, allow_empty=arguments.allow_empty), test.good
    if test.faults and not arguments.skip_bad:
        _list(test.faults, SHOWN)
        raise RewardError(f"The test data {arguments.test} has faults; mend them, or leave them out with --skip-bad.")
    return check_records(records, faults=faults, test=test.good, allow_empty=arguments.allow_empty), test.good


def _read(path: Path, arguments: argparse.Namespace) -> tuple[Sequence[Record], list[Fault]]:
    from rewards.training.hard_negatives import pairs_of_runs
    from rewards.training.records import read_records

    if path.is_dir() and (arguments.judge or arguments.picks):
        judge = None if arguments.picks else _judge(arguments.judge)
        return pairs_of_runs(
            path, judge=judge, picks=arguments.picks, gap=arguments.gap, most=arguments.per_run
        ), []  # fmt: skip
    return read_records(path, arguments.images)


def _judge(spec: str | None) -> Reward | None:
    from rewards import load_reward

    return None if spec is None else load_reward(spec)


def _with_mismatched(records: list[Record], arguments: argparse.Namespace) -> list[Record]:
    from rewards.training.hard_negatives import mismatched

    count = round(arguments.mismatched * len(records))
    if not count:
        return records
    return [*records, *mismatched(records, count, seed=arguments.seed, judge=_judge(arguments.judge))]


def _write(records: list[Record], path: Path) -> int:
    from rewards.training.records import write_records

    write_records(path, records)
    print(path)
    return 0


def _start(name: str | None) -> Official | None:
    from rewards.llava.hub import locate
    from rewards.llava.official import read_official

    return None if name is None else read_official(locate(name))


def _train(run: Run, *, resume: bool) -> None:
    """Train with a bar on stderr: loss, accuracy and margin of late, learning rate, steps a second, time left."""
    from tqdm import tqdm

    from rewards.training.run import tracker_of, train

    if run.tracker is None and tracker_of(None) is None:
        _say(f"the log is {run.out / 'log.jsonl'} alone; for TensorBoard: pip install tensorboard.")
    late: Report | None = None
    with tqdm(total=run.steps, unit="step", dynamic_ncols=True, disable=not _is_first()) as bar:
        for report in train(run, resume=resume):
            bar.update(report.step - bar.n)
            late = _smoothed(late, report)
            told = f"loss {late.loss:.3f}, accuracy {late.accuracy:.2f}, margin {late.margin:.3f}"
            bar.set_postfix_str(f"{told}, rate {late.rate:.1e}")


def _smoothed(late: Report | None, report: Report, weight: float = 0.1) -> Report:
    from dataclasses import replace

    if late is None:
        return report
    mixed = {name: (1 - weight) * getattr(late, name) + weight * getattr(report, name) for name in ("loss", "accuracy")}
    margin = report.margin if late.margin != late.margin else (1 - weight) * late.margin + weight * report.margin
    return replace(report, **mixed, margin=late.margin if margin != margin else margin)


def _list(faults: Sequence[Fault], most: int) -> None:
    for fault in faults[:most]:
        _say(str(fault))
    if len(faults) > most:
        _say(f"… and {len(faults) - most} more, which --check-data lists.")


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _say(text: str) -> None:
    if _is_first():
        print(f"train-reward: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
