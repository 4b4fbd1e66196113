"""A whole training: from records to a checkpoint in the published layout, resumable after a kill at any moment.

    training.safetensors            the state so far (`state`), gone when all is done
    log.jsonl                       one line per step
    lora/, pytorch_model.bin, …     the checkpoint, at the end (`rewards.llava.official`)
    training.json                   what made it

Once the last of these is there, the training is finished.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rewards.errors import CheckpointError, RewardError
from rewards.llava.families import resolve
from rewards.llava.official import Official
from rewards.llava.weights import fingerprint as weights_fingerprint
from rewards.llava.writing import save_official
from rewards.training import sharding, zero
from rewards.training.loop import Report, Trainer
from rewards.training.order import Order, length
from rewards.training.parallel import Join, Replicated
from rewards.training.records import Record, as_row
from rewards.training.settings import Settings
from rewards.training.sights import Sights
from rewards.training.state import FILE, difference, replace_synced
from rewards.training.trainee import Trainee, load_trainee

LOG, DONE = "log.jsonl", "training.json"


@dataclass(frozen=True)
class Run:
    """What is trained on what, and where the result goes.

    Attributes:
        records: checked ones.
        base: folder or hub name of the base model, or "embedded".
        out: the training's folder, and in the end the checkpoint's.
        settings: all that the weights depend on beside.
        test: records that are judged at the end.
        start: a checkpoint to begin from.
        save_every: steps between two states on disk.
        cpu: never take a GPU.
        keep: bytes of pictures that stay in memory: features of a frozen vision tower, pixels for one that is trained.
        tracker: of accelerate beside the log, such as "wandb", or "none"; if None, TensorBoard where it is installed.
        shard: share the weights out among the processes, as a configuration of accelerate with FSDP or DeepSpeed does.
    """

    records: Sequence[Record]
    base: str
    out: Path
    settings: Settings
    test: Sequence[Record] = ()
    start: Official | None = None
    save_every: int = 100
    cpu: bool = False
    keep: int = 1 << 30
    tracker: str | None = None
    shard: bool = False

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.settings.steps_for(len(self.records))


def is_done(out: Path) -> bool:
    """Whether the training in a folder is finished."""
    return (out / DONE).is_file()


def train(run: Run, *, resume: bool = False) -> Iterator[Report]:
    """Train, reporting every step, and write the checkpoint at the end; a finished one is left as it is.

    Args:
        run: what to do.
        resume: go on with what is in `run.out`, if anything is.

    Raises:
        RewardError: the base model, data or folder do not allow it.
    """
    if resume and is_done(run.out):
        return
    join = _sharing(run)  # what cannot be is said before accelerate fails in its own words
    accelerator = _accelerator(run)
    _claim(run.out, resume=resume)
    trainee, loaded = load_trainee(run.base, run.settings, device=accelerator.device, start=run.start)
    sights = Sights(trainee, loaded.inputs, keep=run.keep)
    try:
        trainer = _trainer(run, trainee, sights, accelerator, join)
        if resume:
            trainer.resume(run.out)
        log = _Log(run, accelerator, trainer.step)
        for report in trainer.run():
            log.add(report)
            if report.step % run.save_every == 0 or report.step == run.steps:
                trainer.save(run.out)
            yield report
        checkpoint = trainee.official(resolve(run.base), trainer.parallel.gather)
        tested = _tested(run, trainer) if accelerator.is_main_process or trainer.parallel.split else None
        if accelerator.is_main_process:
            _finish(run, checkpoint, {**trainer.terms, "test": tested})
        accelerator.wait_for_everyone()  # who leaves before the first has written may be aborted on the way out
        accelerator.end_training()
    finally:
        sights.close()


def check_done(run: Run) -> None:
    """Raise `CheckpointError` unless the finished training in `run.out` is this one."""
    done = json.loads((run.out / DONE).read_text(encoding="utf-8"))
    terms = {**asdict(run.settings), "steps": run.steps, **_terms(run)}
    both = done.keys() & terms.keys()
    if found := difference({name: done[name] for name in both}, {name: terms[name] for name in both}):
        name, theirs, ours = found
        raise CheckpointError(
            f"The finished training in {run.out} has {name} {theirs!r}, this one {ours!r}; choose another folder, or "
            "begin from it with --init."
        )


def tracker_of(name: str | None) -> str | None:
    """What accelerate tracks with: what was asked for, else TensorBoard where it is installed; None: the log alone.

    Raises:
        RewardError: there is no such tracker, or it is not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    there = [str(tracker) for tracker in get_available_trackers()]
    if name is None:
        return "tensorboard" if "tensorboard" in there else None
    if name == "none":
        return None
    known = sorted(map(str, LOGGER_TYPE_TO_CLASS))
    if name not in known:
        raise RewardError(f"Got tracker {name!r}; expected none, {', '.join(known[:-1])} or {known[-1]}.")
    if name not in there:
        raise RewardError(f"The tracker {name} is not installed; install it, or take another one, such as none.")
    return name


def fingerprint(records: Sequence[Record]) -> str:
    """A hash of the records in their order, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(as_row(record)).encode())
    return digest.hexdigest()[:12]


def _accelerator(run: Run) -> Any:  # noqa: ANN401  accelerate has no types
    from accelerate import Accelerator
    from accelerate.utils import patch_environment

    cpu = run.cpu or not (_processes() == 1 or torch.cuda.is_available())
    with patch_environment(**{zero.FLAG: "false"}):  # accelerate would know it on GPUs alone
        return Accelerator(cpu=cpu, log_with=tracker_of(run.tracker), project_dir=str(run.out))


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _sharing(run: Run) -> Join:
    """How processes share the training, as the run or accelerate's configuration has it.

    Raises:
        RewardError: it cannot be.
    """
    config, fsdp = zero.configuration(run.settings), sharding.is_configured()
    if config is not None and (run.shard or fsdp):
        raise RewardError("Got DeepSpeed and FSDP (or --shard), which share weights out each in its own way; take one.")
    if _processes() == 1:
        return Replicated
    if config is not None and zero.stage_of(config) > 0:
        return lambda trainee, _: zero.Zero(trainee, config)
    return sharding.Sharded if run.shard or fsdp else Replicated


def _claim(out: Path, *, resume: bool) -> None:
    """Make the folder, unless it holds a training that would be lost."""
    if is_done(out):
        raise CheckpointError(f"{out} holds a finished training, which stays as it is; choose another folder.")
    if (out / FILE).is_file() and not resume:
        raise CheckpointError(f"{out} holds an unfinished training; go on with --resume, or choose another folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{out} cannot be made ({error.strerror}); choose another folder.") from error


def _trainer(run: Run, trainee: Trainee, sights: Sights, accelerator: Any, join: Join) -> Trainer:  # noqa: ANN401
    lengths = [length(record) for record in run.records]
    order = Order(lengths, run.settings.batch, run.steps, run.settings.seed)
    return Trainer(
        trainee, sights, run.records, order, run.steps, accelerator=accelerator, join=join, terms=_terms(run)
    )


def _terms(run: Run) -> dict[str, object]:
    """What a training depends on beside settings and steps."""
    weights = weights_fingerprint(resolve(run.base))
    return {"base": run.base, "base weights": weights, "data": fingerprint(run.records)}


class _Log:
    """One line per step in the first process, and whatever accelerate tracks with."""

    def __init__(self, run: Run, accelerator: Any, step: int) -> None:  # noqa: ANN401
        self._accelerator, self._path = accelerator, run.out / LOG
        if accelerator.is_main_process:
            self._cut(step)
        accelerator.init_trackers("train-reward", config=asdict(run.settings))

    def add(self, report: Report) -> None:
        values = {name: None if value != value else value for name, value in asdict(report).items()}
        if self._accelerator.is_main_process:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        self._accelerator.log({name: value for name, value in values.items() if value is not None}, step=report.step)

    def _cut(self, step: int) -> None:
        """Drop what was logged behind the state that the training goes on from, and a line cut off by a kill."""
        lines = self._path.read_text(encoding="utf-8").splitlines()[:step] if self._path.is_file() else []
        part = self._path.with_suffix(".part")
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        part.replace(self._path)


def _finish(run: Run, checkpoint: Official, terms: Mapping[str, object]) -> None:
    """Write the checkpoint, what made it, and remove the state."""
    folder, part = resolve(run.base), run.out / ".checkpoint"
    shutil.rmtree(part, ignore_errors=True)
    name = str(Path(run.base).absolute()) if Path(run.base).is_dir() else run.base
    save_official(part, checkpoint, base=folder, base_name=name)
    for path in sorted(part.rglob("*")):
        if path.is_file():
            (run.out / path.relative_to(part)).parent.mkdir(exist_ok=True)
            replace_synced(path, run.out / path.relative_to(part))
    shutil.rmtree(part)
    facts = {**terms, "records": len(run.records), "torch": torch.__version__}
    (run.out / f"{DONE}.part").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    replace_synced(run.out / f"{DONE}.part", run.out / DONE)
    (run.out / FILE).unlink(missing_ok=True)


def _tested(run: Run, trainer: Trainer) -> dict[str, float] | None:
    if not run.test:
        return None
    judged = trainer.evaluate(run.test)
    return {"n": len(run.test), "accuracy": float(judged.right) / len(run.test)}
