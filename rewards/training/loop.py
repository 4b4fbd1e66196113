"""The training loop: it yields a report of every step, and the caller shows, logs and saves.

for report in trainer.run():
    ...
    if report.step % 100 == 0:
        trainer.save(folder)
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rewards.errors import RewardError
from rewards.training.losses import advantages, classification_losses, pair_losses
from rewards.training.order import shares
from rewards.training.parallel import Join, Replicated
from rewards.training.records import Pair, Record, Single
from rewards.training.settings import Settings
from rewards.training.sights import Sights
from rewards.training.state import State, load_state, save_state
from rewards.training.trainee import Trainee


@dataclass(frozen=True)
class Report:
    """What a step was like, over all processes.

    Attributes:
        step: how many steps are done.
        loss: mean over the step's records.
        accuracy: share of its records that were told right before the step was made.
        margin: mean advantage of chosen over rejected sides; NaN without pairs.
        gradient: norm before clipping.
        rate: learning rate of the step.
        seconds: it took.
    """

    step: int
    loss: float
    accuracy: float
    margin: float
    gradient: float
    rate: float
    seconds: float


class Judged(NamedTuple):
    """Sums over some records: what they cost, how many were told right, advantages of pairs, and pairs."""

    cost: Tensor
    right: Tensor
    advantage: Tensor
    pairs: Tensor


class Trainer:
    """Trains a model on records; several processes, each with one of these, train the same one together.

    Args:
        trainee: the model.
        sights: its pictures.
        records: to be trained on.
        order: numbers of the records of each step.
        steps: of the whole training.
        accelerator: of accelerate.
        join: makes of model and accelerator how this process takes part; `Replicated`, unless weights are split.
        terms: what a resumed training must agree on beside the settings, for example a hash of the data.

    Attributes:
        step: how many steps are done.
        parallel: how this process takes part.

    Raises:
        RewardError: a general preference is to be trained on labels, or the batch cannot be shared among the processes.
    """

    def __init__(
        self,
        trainee: Trainee,
        sights: Sights,
        records: Sequence[Record],
        order: Callable[[int], Sequence[int]],
        steps: int,
        *,
        accelerator: Any,  # noqa: ANN401  accelerate has no types
        join: Join = Replicated,
        terms: dict[str, object] | None = None,
    ) -> None:
        settings = trainee.settings
        _check(settings, records, accelerator.num_processes)
        self.trainee, self.settings, self.steps, self.step = trainee, settings, steps, 0
        self.terms = {**asdict(settings), "steps": steps, **(terms or {})}
        self._sights, self._records, self._order, self._accelerator = sights, records, order, accelerator
        self.parallel = join(trainee, accelerator)

    def resume(self, folder: Path) -> bool:
        """Go on from the state in `folder`; whether there is one.

        Raises:
            CheckpointError: it is damaged, or another training's.
        """
        state = load_state(folder, self.terms)
        if state is None:
            return False
        self.parallel.restore(state.tensors)
        self.step = state.step
        return True

    def save(self, folder: Path) -> None:
        """Keep the state in `folder`; all processes must ask, and the first one writes."""
        state = State(self.step, self.parallel.state())
        if self._accelerator.is_main_process:
            save_state(folder, state, self.terms)

    def run(self) -> Iterator[Report]:
        """Make the steps that are left, and report each."""
        self.parallel.model.train()
        while self.step < self.steps:
            yield self._advance()
        self.parallel.model.eval()

    @torch.no_grad()
    def evaluate(self, records: Sequence[Record]) -> Judged:
        """Sums over `records`, in this process alone; where weights are split, all of them must ask for them."""
        model = self.parallel.model if self.parallel.split else self.trainee
        model.eval()
        chunks = [records[start : start + self.settings.micro] for start in range(0, len(records), self.settings.micro)]
        judged = [self._judge(model, chunk) for chunk in chunks]
        return Judged(*(torch.stack(sums).sum(0) for sums in zip(*judged, strict=True)))

    def _advance(self) -> Report:
        began, accelerator = time.perf_counter(), self._accelerator
        rate = self.settings.rate_at(self.step, self.steps)
        parts, upcoming = self._parts(self.step), self._parts(self.step + 1)[:1]
        with _seeded(self.settings.seed, self.step, accelerator.process_index, self.trainee.device):
            passes = pairwise([*parts, *(upcoming or [[]])])
            sums = torch.stack([self._backward(part, ahead, part is parts[-1]) for part, ahead in passes]).sum(0)
        norm = self.parallel.step(rate)
        if not norm.isfinite():  # in all processes alike, and before the state on disk is replaced
            raise RewardError(
                f"Step {self.step + 1} has a gradient that is not finite; begin again with a lower rate, or without "
                "bfloat16."
            )
        self.step += 1
        cost, right, advantage, pairs = accelerator.reduce(sums, reduction="sum").tolist()
        return Report(
            step=self.step,
            loss=cost / self.settings.batch,
            accuracy=right / self.settings.batch,
            margin=advantage / pairs if pairs else float("nan"),
            gradient=float(norm),
            rate=rate,
            seconds=time.perf_counter() - began,
        )

    def _parts(self, step: int) -> list[list[Record]]:
        """This process's records of a step, pass by pass; none behind the last step."""
        accelerator, chosen = self._accelerator, self._order(step) if step < self.steps else ()
        shared = shares(chosen, self.settings.micro, accelerator.process_index, accelerator.num_processes)
        return [[self._records[number] for number in part] for part in shared]

    def _backward(self, part: list[Record], ahead: list[Record], last: bool) -> Tensor:
        """Add one pass's gradients, those of all processes at the last pass; pictures `ahead` are decoded meanwhile."""
        self._sights.expect(side for record in [*part, *ahead] for side in record.sides)
        with torch.enable_grad(), self.parallel.accumulate(last=last):
            judged = self._judge(self.parallel.model, part)
            # processes average their gradients, so that each must count as often as there are processes
            self.parallel.backward(judged.cost * self._accelerator.num_processes / self.settings.batch)
        return torch.stack(judged).detach()

    def _judge(self, model: torch.nn.Module, part: Sequence[Record]) -> Judged:
        """One pass over all sides of `part`."""
        rows, features = self._sights.rows([side for record in part for side in record.sides])
        outputs = model(rows, features)  # (sides, d)
        ends = [0]
        for record in part:
            ends.append(ends[-1] + len(record.sides))
        pairs = [(start, record) for start, record in zip(ends, part, strict=False) if isinstance(record, Pair)]
        singles = [(start, record) for start, record in zip(ends, part, strict=False) if isinstance(record, Single)]
        zero = outputs.new_zeros(())
        judged = Judged(0 * outputs.sum(), zero, zero, zero)  # whose gradient is there, whatever the part holds
        if pairs:
            judged = _sum(judged, self._of_pairs(outputs, pairs))
        return _sum(judged, self._of_singles(outputs, singles)) if singles else judged

    def _of_pairs(self, outputs: Tensor, pairs: list[tuple[int, Pair]]) -> Judged:
        starts = torch.tensor([start for start, _ in pairs], device=outputs.device)
        margins = [self.settings.margin if pair.margin is None else pair.margin for _, pair in pairs]
        chosen, rejected = outputs[starts], outputs[starts + 1]
        losses = pair_losses(self.settings.loss, chosen, rejected, self.settings.tau, outputs.new_tensor(margins))
        ahead = advantages(chosen, rejected).detach()
        return Judged(losses.sum(), (ahead > 0).float().sum(), ahead.sum(), outputs.new_tensor(float(len(pairs))))

    def _of_singles(self, outputs: Tensor, singles: list[tuple[int, Single]]) -> Judged:
        given = outputs[torch.tensor([start for start, _ in singles], device=outputs.device)]
        labels = outputs.new_tensor([single.label for _, single in singles])
        losses = self.settings.label_weight * classification_losses(given, labels)
        right = ((given[:, 0] > 0) == (labels > 0.5)).float().sum()
        return Judged(losses.sum(), right, 0 * right, 0 * right)


def _sum(first: Judged, second: Judged) -> Judged:
    return Judged(*(a + b for a, b in zip(first, second, strict=True)))


@contextmanager
def _seeded(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    """Dropout inside is a function of the three numbers; the global generator is as before afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
        torch.manual_seed((seed * 1_000_003 + step) * 4099 + rank)
        yield


def _check(settings: Settings, records: Sequence[Record], processes: int) -> None:
    labels = [record for record in records if isinstance(record, Single)]
    if labels and settings.loss == "gpm":
        raise RewardError(
            f"{labels[0].where} labels one picture, but a general preference only compares; take the loss bt or cls, "
            "or leave labels out."
        )
    if not records:
        raise RewardError("Got no records; expected at least one pair or labelled picture to train on.")
    if settings.batch % processes:
        raise RewardError(
            f"Got a batch of {settings.batch} for {processes} processes; expected a multiple of their number."
        )
