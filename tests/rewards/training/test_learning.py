"""Training moves every part that it should and no other, and learns a preference that the base model does not have."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from rewards import load_reward
from rewards.errors import CheckpointError, RewardError
from rewards.llava.checkpoint import EMBEDDED
from rewards.llava.official import HEAD_PARTS, Official, read_official
from rewards.training.records import Pair, Single
from rewards.training.run import Run, train
from rewards.training.sights import Sights
from rewards.training.trainee import Trainee, is_projector, load_trainee
from tests.rewards.llava.cases import GOLDENS, qwen_base
from tests.rewards.training.world import misaligned, pictures, small, trainer_of


def part_of(name: str) -> str:
    """What the paper calls the part that a parameter of the trainee belongs to."""
    name = name.removeprefix("backbone.").removeprefix("head.")
    if name.startswith(HEAD_PARTS):
        return name.partition(".")[0]
    if ".lora_" in name:
        return "lora_A" if ".lora_A." in name else "lora_B"
    return "projector" if is_projector(name) else "frozen"


def moved(trainee: Trainee, before: dict[str, Tensor]) -> dict[str, float]:
    """By part the smallest change of any of its parameters, of frozen ones the largest."""
    changes: dict[str, list[float]] = {}
    for name, now in trainee.named_parameters():
        changes.setdefault(part_of(name), []).append(float((now.detach() - before[name]).abs().max()))
    return {part: max(values) if part == "frozen" else min(values) for part, values in changes.items()}


PARTS = {"lora_A", "lora_B", "value_head", "W_q", "W_k", "W_v", "ca_layernorm", "projector"}


@pytest.mark.parametrize("base", ["embedded", GOLDENS / "phi3v/base", GOLDENS / "llava/base"], ids=str)
@pytest.mark.parametrize("lora_only", [False, True])
def test_every_intended_part_moves_and_nothing_else(base: str | Path, lora_only: bool, tmp_path: Path) -> None:
    settings = small(lora_only=lora_only, batch=2, steps=3, num_crops=1, warmup=0.0)
    trainer, trainee = trainer_of(misaligned(tmp_path, 4, 0), settings, base)
    before = {name: value.detach().clone() for name, value in trainee.named_parameters()}
    assert all(report.gradient > 0 for report in trainer.run())
    changes = moved(trainee, before)
    trained = {"lora_A", "lora_B"} if lora_only else PARTS
    assert {part for part, change in changes.items() if change > 0} == trained
    assert changes.keys() == {*PARTS, "frozen"}


@pytest.mark.parametrize("base", ["embedded", GOLDENS / "phi3v/base"], ids=str)
def test_the_tower_moves_when_asked_and_is_read_again(base: str | Path, tmp_path: Path) -> None:
    settings = small(tower=True, batch=2, steps=2, num_crops=1, warmup=0.0, rate=0.02)
    pairs, out = misaligned(tmp_path / "data", 2, 0), tmp_path / "out"
    list(train(Run(pairs, str(base), out, settings)))
    read = read_official(out)
    tower = {name: up for name, (_, up) in read.lora.items() if "vision_model.encoder.layers" in name}
    assert {name.rpartition(".")[2] for name in tower} == {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}
    assert all(bool(up.any()) for up in tower.values())  # they begin at zero
    reward = load_reward("llava-reward", checkpoint=out, num_crops=1)
    images = [Image.open(side.image) for side in pairs[0].sides]
    found = reward(images, [side.prompt for side in pairs[0].sides])
    trainee, loaded = load_trainee(str(base), settings, start=read)
    rows, features = Sights(trainee, loaded.inputs).rows(pairs[0].sides)
    assert features is None
    with torch.no_grad():
        torch.testing.assert_close(found, trainee.eval()(rows)[:, 0], atol=1e-5, rtol=1e-4)


def test_a_preference_against_the_prompt_is_learned(tmp_path: Path) -> None:
    settings = small(batch=8, micro=8, steps=8, rate=3e-3, rank=8, alpha=16.0)
    test, out = misaligned(tmp_path / "test", 32, 1), tmp_path / "out"
    trainer, _ = trainer_of(misaligned(tmp_path / "data", 48, 0), settings)
    assert float(trainer.evaluate(test).right) / 32 < 0.3
    reports = list(train(Run(misaligned(tmp_path / "data", 48, 0), "embedded", out, settings, test=test)))
    assert reports[-1].loss < reports[0].loss
    reward = load_reward("llava-reward", checkpoint=out)
    ahead = [
        reward([Image.open(side.image) for side in pair.sides], [side.prompt for side in pair.sides]) for pair in test
    ]
    assert sum(bool(scores[0] > scores[1]) for scores in ahead) / 32 >= 0.95


@pytest.mark.parametrize(("loss", "dim"), [("bt", 2), ("gpm", 4), ("cls", 2)])
def test_a_checkpoint_has_the_official_names_and_scores_as_in_training(loss: str, dim: int, tmp_path: Path) -> None:
    settings = small(loss=loss, dim=dim, steps=2, rate=0.02, warmup=0.0)
    pairs, out = misaligned(tmp_path, 4, 0), tmp_path / "out"
    runs = list(train(Run(pairs, "embedded", out, settings)))
    assert len(runs) == 2
    read = read_official(out)
    assert sorted(read.head) == ["W_k.weight", "W_q.weight", "W_v.weight", "ca_layernorm.weight", "value_head.weight"]
    assert read.settings.is_general_preference == (loss == "gpm")
    trainer, trainee = trainer_of(pairs, settings)
    for _ in trainer.run():
        pass
    for name, (down, up) in trainee.official(EMBEDDED).lora.items():
        assert torch.equal(read.lora[name][0], down)
        assert torch.equal(read.lora[name][1], up)
    fresh, loaded = load_trainee("embedded", settings, start=read)
    rows, features = Sights(fresh, loaded.inputs).rows(pairs[0].sides)
    with torch.no_grad():
        expected = fresh.eval()(rows, features)
    reward = load_reward("llava-reward", checkpoint=out)
    images = [Image.open(side.image) for side in pairs[0].sides]
    found = reward.heads(images, [side.prompt for side in pairs[0].sides])  # type: ignore[attr-defined]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_skipca_on_qwen_looks_at_the_picture_after_training_too(tmp_path: Path) -> None:
    """The published code looks at padding there, and reading must not take our checkpoint for one of its."""
    base, settings = qwen_base(tmp_path), small(batch=1, steps=2, rate=0.02, warmup=0.0)
    pairs, out = misaligned(tmp_path / "data", 1, 0), tmp_path / "out"
    list(train(Run(pairs, str(base), out, settings)))
    trainee, loaded = load_trainee(base, settings, start=read_official(out))
    rows, features = Sights(trainee, loaded.inputs).rows(pairs[0].sides)
    with torch.no_grad():
        expected = trainee.eval()(rows, features)[:, 0]
    images, prompts = [Image.open(side.image) for side in pairs[0].sides], [side.prompt for side in pairs[0].sides]
    found = load_reward("llava-reward", checkpoint=out)(images, prompts)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    blind = load_reward("llava-reward", checkpoint=out, skipca="official")(images, prompts)
    assert float((blind - expected).abs().max()) > 1e-4


def test_pairs_and_labels_are_learned_in_one_run(tmp_path: Path) -> None:
    pairs = misaligned(tmp_path / "pairs", 8, 0)
    labels = [Single(side, float(number % 2)) for number, side in enumerate(pictures(tmp_path / "labels", 8, 1))]
    trainer, _ = trainer_of([*pairs, *labels], small(batch=16, micro=4, steps=1, dropout=0.0))
    (report,) = trainer.run()
    both = trainer_of(pairs, small())[0].evaluate(pairs), trainer_of(labels, small())[0].evaluate(labels)
    assert report.loss == pytest.approx(sum(float(part.cost) for part in both) / 16, rel=1e-5)
    assert report.accuracy == pytest.approx(sum(float(part.right) for part in both) / 16)


def test_checkpointing_accumulation_and_joint_passes_change_no_gradient(tmp_path: Path) -> None:
    pairs = misaligned(tmp_path, 4, 0)
    gradients = []
    for changes in ({}, {"checkpointing": True}, {"micro": 1}):
        trainer, _ = trainer_of(pairs, small(dropout=0.0, steps=1, **changes))
        gradients.append(next(trainer.run()).gradient)
    assert gradients[1] == pytest.approx(gradients[0], rel=1e-6)
    assert gradients[2] == pytest.approx(gradients[0], rel=1e-5)


def test_bfloat16_keeps_what_is_trained_in_float32(tmp_path: Path) -> None:
    pairs = misaligned(tmp_path, 4, 0)
    exact, rough = (trainer_of(pairs, small(dropout=0.0, bfloat16=half)) for half in (False, True))
    assert {value.dtype for _, value in rough[1].trained()} == {torch.float32}
    assert next(rough[1].backbone.vision_tower.parameters()).dtype == torch.bfloat16  # type: ignore[union-attr]
    losses = [next(trainer.run()).loss for trainer, _ in (exact, rough)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    label = Single(pictures(tmp_path, 1, 0)[0], 1.0, "data.jsonl:7")
    with pytest.raises(RewardError, match=r"data\.jsonl:7 labels one picture, but a general preference only compares"):
        trainer_of([label], small(loss="gpm"))
    with pytest.raises(RewardError, match="Got no records"):
        next(train(Run([], "embedded", tmp_path / "out", small())))
    with pytest.raises(CheckpointError, match="expected a LoRA checkpoint of the same base model and rank"):
        load_trainee("embedded", small(rank=2), start=saved(misaligned(tmp_path, 2, 0), tmp_path / "rank-4"))
    with pytest.raises(CheckpointError, match="has another head"):
        load_trainee("embedded", small(skipca=False), start=read_official(tmp_path / "rank-4"))


def saved(pairs: list[Pair], out: Path) -> Official:
    """A checkpoint after one step."""
    list(train(Run(pairs, "embedded", out, small(steps=1))))
    return read_official(out)


def test_a_gradient_that_is_not_finite_stops_before_the_weights(tmp_path: Path) -> None:
    trainer, trainee = trainer_of(misaligned(tmp_path, 2, 0), small(margin=float("nan")))
    before = [value.detach().clone() for _, value in trainee.trained()]
    with pytest.raises(RewardError, match="Step 1 has a gradient that is not finite"):
        next(trainer.run())
    assert all(torch.equal(old, new) for old, (_, new) in zip(before, trainee.trained(), strict=True))
