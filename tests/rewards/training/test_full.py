"""Training of a base model's own weights: all of them move, and the checkpoint is a whole model that is read again."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rewards import load_reward
from rewards.errors import CheckpointError, RewardError
from rewards.llava.checkpoint import EMBEDDED
from rewards.llava.describe import describe
from rewards.llava.official import read_official
from rewards.training.checks import open_picture
from rewards.training.run import Run, train
from rewards.training.settings import Settings
from rewards.training.sights import Sights
from rewards.training.trainee import load_trainee
from tests.rewards.llava.cases import GOLDENS, qwen_base
from tests.rewards.training.world import misaligned, small, trainer_of

PHI = GOLDENS / "phi3v/base"


def whole(**changes: object) -> Settings:
    return small(**{"full": True, "batch": 2, "steps": 2, "warmup": 0.0, "num_crops": 1, **changes})


@pytest.mark.parametrize("base", ["embedded", PHI, GOLDENS / "llava/base"], ids=str)
@pytest.mark.parametrize("tower", [False, True])
@pytest.mark.parametrize("projector", [False, True])
def test_every_weight_moves_but_those_left_out(base: str | Path, tower: bool, projector: bool, tmp_path: Path) -> None:
    trainer, trainee = trainer_of(misaligned(tmp_path, 4, 0), whole(tower=tower, projector=projector), base)
    before = {name: value.detach().clone() for name, value in trainee.named_parameters()}
    assert all(report.gradient > 0 for report in trainer.run())
    still = {name for name, value in trainee.named_parameters() if torch.equal(value, before[name])}
    seen = {name for name in before if "vision_tower." in name or "img_processor." in name}
    projecting = {name for name in before if "multi_modal_projector." in name or "img_projection." in name}
    assert seen
    assert projecting
    assert not any(".lora_" in name for name in before)
    assert still == (set() if tower else seen) | (set() if projector else projecting)


@pytest.mark.parametrize("family", ["embedded", "phi3v", "qwen", "llava"])
def test_a_whole_model_scores_as_in_training(family: str, tmp_path: Path) -> None:
    folders = {"embedded": EMBEDDED, "phi3v": PHI, "llava": GOLDENS / "llava/base"}
    base = folders[family] if family in folders else qwen_base(tmp_path)
    pairs, settings, out = misaligned(tmp_path / "data", 2, 0), whole(rate=0.03, steps=3), tmp_path / "out"
    list(train(Run(pairs, str(base), out, settings)))
    read = read_official(out)
    assert read.full
    assert sorted(read.head) == ["W_k.weight", "W_q.weight", "W_v.weight", "ca_layernorm.weight", "value_head.weight"]
    assert describe(out).layout == "published, full fine-tune"
    trainer, trainee = trainer_of(pairs, settings, base)
    list(trainer.run())
    stored = load_file(out / "model.safetensors")
    named = dict(trainee.backbone.named_parameters())
    assert all(torch.equal(stored[name], value) for name, value in named.items())
    assert not {name for name in stored if ".lora_" in name}
    images, prompts = [open_picture(side.image) for side in pairs[0].sides], [side.prompt for side in pairs[0].sides]
    _, loaded = load_trainee(base, settings)
    rows, features = Sights(trainee, loaded.inputs).rows(pairs[0].sides)
    with torch.no_grad():
        expected = trainee.eval()(rows, features)[:, 0]
    found = load_reward("llava-reward", checkpoint=out, num_crops=1)(images, prompts)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_what_no_reward_reads_stays_in_the_folder(tmp_path: Path) -> None:
    list(train(Run(misaligned(tmp_path / "data", 1, 0), str(PHI), tmp_path / "out", whole())))
    before, after = (load_file(folder / "model.safetensors") for folder in (PHI, tmp_path / "out"))
    assert before.keys() <= after.keys()
    assert torch.equal(before["lm_head.weight"], after["lm_head.weight"])
    assert (PHI / "preprocessor_config.json").read_bytes() == (tmp_path / "out/preprocessor_config.json").read_bytes()


def test_killed_and_resumed_in_the_same_bits(tmp_path: Path) -> None:
    pairs = misaligned(tmp_path / "data", 5, 0)
    runs = [Run(pairs, "embedded", tmp_path / name, whole(steps=5), save_every=2) for name in ("one", "two")]
    list(train(runs[0]))
    for steps in (3, 1):
        list(islice(train(runs[1], resume=True), steps))
    list(train(runs[1], resume=True))
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()


def test_it_goes_on_from_either_kind_of_checkpoint(tmp_path: Path) -> None:
    pairs = misaligned(tmp_path / "data", 4, 0)
    for name, settings in (("low", small(rate=0.02)), ("full", whole(rate=0.01))):
        list(train(Run(pairs, "embedded", tmp_path / name, settings)))
        read, reward = read_official(tmp_path / name), load_reward("llava-reward", checkpoint=tmp_path / name)
        trainee, loaded = load_trainee("embedded", whole(), start=read)
        rows, features = Sights(trainee, loaded.inputs).rows(pairs[0].sides)
        with torch.no_grad():
            found = trainee.eval()(rows, features)[:, 0]
        expected = reward(
            [open_picture(side.image) for side in pairs[0].sides], [side.prompt for side in pairs[0].sides]
        )
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    list(train(Run(pairs, str(tmp_path / "full"), tmp_path / "again", whole())))  # its head is no part of a base


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="full and lora_only, which exclude each other"):
        whole(lora_only=True)
    list(train(Run(misaligned(tmp_path / "data", 1, 0), "embedded", tmp_path / "out", whole(steps=1))))
    read = read_official(tmp_path / "out")
    with pytest.raises(CheckpointError, match="has no low-rank matrices; begin from a LoRA checkpoint"):
        load_trainee("embedded", small(), start=read)
    with pytest.raises(CheckpointError, match="has another head"):
        load_trainee("embedded", whole(skipca=False), start=read)
    with pytest.raises(CheckpointError, match=r"was trained on llava, but .* is phi3v"):
        load_trainee(PHI, whole(), start=read)
