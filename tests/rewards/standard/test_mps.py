"""MPS against the original implementation, github.com/Kwai-Kolors/MPS at be9027f, run in float32."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewards import RewardError, load_reward
from rewards.mps import Crossing, parted
from rewards.testing import check_reward
from tests.rewards.standard.tiny import (
    OPEN_CLIP,
    PROMPTS,
    clip_config,
    crossing_shapes,
    golden,
    mps_weights,
    pictures,
    write_clip_tokenizer,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("mps")
    write_clip_tokenizer(folder)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": OPEN_CLIP}))
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(**clip_config()))
    shapes = {f"model.{name}": tuple(weight.shape) for name, weight in model.named_parameters()}
    state = mps_weights(shapes | crossing_shapes(32, layers=2, heads=2))
    save_file({f"mps.{name}": tensor for name, tensor in state.items()}, folder / "model.safetensors")
    torch.save(state, folder / "state.pth")
    return folder


def test_scores_are_those_of_the_original(folder: Path) -> None:
    reward = load_reward("mps", checkpoint=folder)
    assert reward(pictures(), PROMPTS).tolist() == pytest.approx(golden("mps")["scores"], abs=1e-4)
    by_file = load_reward("mps", checkpoint=folder / "state.pth")
    assert torch.equal(by_file(pictures(), PROMPTS), reward(pictures(), PROMPTS))


def test_words_that_have_nothing_to_do_with_the_condition_are_masked_as_in_the_original(folder: Path) -> None:
    reward = load_reward("mps", checkpoint=folder, threshold=0.75)
    scores = reward(pictures(), PROMPTS)
    assert scores.tolist() == pytest.approx(golden("mps")["scores_at_0.75"], abs=1e-4)
    taking_part = reward.network.text(PROMPTS)[:, :-1, -1].sum(1)  # type: ignore[attr-defined]
    assert taking_part.tolist() == golden("mps")["words_at_0.75"]


def test_companions_change_no_score(folder: Path) -> None:
    reward = load_reward("mps", checkpoint=folder, threshold=0.75)
    together = reward(pictures(), PROMPTS)
    alone = [reward([picture], [prompt]).item() for picture, prompt in zip(pictures(), PROMPTS, strict=True)]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)


def test_it_keeps_the_contract(folder: Path) -> None:
    check_reward(load_reward("mps", checkpoint=folder), differentiable=True)


def test_names_and_shapes_of_the_full_size_checkpoint() -> None:
    shapes = crossing_shapes(1024)
    listed = "\n".join(sorted(f"{name} {shape}" for name, shape in shapes.items()))
    assert golden("mps")["full"] == {"count": len(shapes), "sha256": hashlib.sha256(listed.encode()).hexdigest()}
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    _, joint = parted(state, Path("model.safetensors"))
    with torch.device("meta"):
        crossing = Crossing(joint)
    assert {name: weight.shape for name, weight in crossing.named_parameters()} == {
        name: tensor.shape for name, tensor in joint.items()
    }


def test_the_authors_pickled_program_is_not_opened(folder: Path, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "MPS_overall_checkpoint.pth")  # a whole module
    with pytest.raises(RewardError, match="save only the state dict"):
        load_reward("mps", checkpoint=tmp_path / "MPS_overall_checkpoint.pth", tokenizer=folder)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(RewardError, match="holds no MPS"):
        load_reward("mps", checkpoint=tmp_path / "other.pth", tokenizer=folder)
