"""Five steps of the official LoRA trainer, repeated: the same losses, gradients and rates, on two backbones."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from rewards.llava.official import read_official
from rewards.training.loop import Trainer
from rewards.training.records import Pair, Record, Side, Single
from rewards.training.settings import Settings
from rewards.training.sights import Sights
from rewards.training.trainee import load_trainee
from tests.rewards.llava.cases import GOLDENS, qwen_base

FOLDER = Path(__file__).parent / "traces"
TRACES: list[dict[str, Any]] = json.loads((FOLDER / "traces.json").read_text(encoding="utf-8"))["traces"]
LOSSES = {"PairWiseLoss": "bt", "GeneralPreferenceLoss": "gpm", "Binary_Cls_loss": "cls"}


def record(sample: dict[str, Any]) -> Record:
    if "image" in sample:
        return Single(Side(GOLDENS / sample["image"], sample["caption"]), sample["label"])
    sides = (Side(GOLDENS / sample[side], sample["caption"]) for side in ("chosen", "rejected"))
    return Pair(*sides)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return cache(lambda: qwen_base(tmp_path_factory.mktemp("qwen")))


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace["id"])
def test_the_lora_only_trainer_repeats_the_official_steps(trace: dict[str, Any], unpacked: Any) -> None:
    start = read_official(FOLDER / trace["start"])
    rank = len(next(iter(start.lora.values()))[0])
    settings = Settings(
        loss=LOSSES[trace["loss_class"]],  # type: ignore[arg-type]
        tau=trace["tau"], rank=rank, alpha=start.scale * rank, dropout=0.0, lora_only=True,
        skipca=start.settings.add_cross_attention, steps=5, batch=2, micro=2, rate=trace["rate"],
        num_crops=trace["num_crops"] or 16,
    )  # fmt: skip
    base = unpacked() if trace["backbone"] == "qwen" else GOLDENS / trace["base"]
    trainee, loaded = load_trainee(base, settings, start=start)
    trainer = Trainer(
        trainee,
        Sights(trainee, loaded.inputs),
        [record(sample) for sample in trace["samples_in_order"]],
        lambda step: [2 * step, 2 * step + 1],
        5,
        accelerator=Accelerator(cpu=True),
    )
    reports = list(trainer.run())
    rounded = {"rel": 0.008} if settings.loss == "cls" else {"rel": 1e-4}  # that loss was computed in bfloat16
    for report, recorded in zip(reports, trace["steps"], strict=True):
        assert report.loss == pytest.approx(recorded["preference_loss"], **rounded)
        assert report.gradient == pytest.approx(recorded["grad_norm"], rel=1e-4)
        assert report.rate == pytest.approx(recorded["lr"], abs=1e-12)
