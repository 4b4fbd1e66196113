"""The LAION aesthetic predictor against the original, christophschuhmann/improved-aesthetic-predictor at 6934dd8."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewards import RewardError, load_reward
from rewards.open_clip import renamed
from rewards.testing import check_reward
from tests.rewards.standard.tiny import (
    PROMPTS,
    clip_config,
    golden,
    head_shapes,
    open_clip_shapes,
    pictures,
    weights,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    (folder / "config.json").write_text(json.dumps(clip_config("quick_gelu")))
    state = weights(open_clip_shapes(), 3)
    named = {new: part.contiguous() for name, tensor in state.items() for new, part in renamed(name, tensor)}
    save_file(named, folder / "model.safetensors")
    torch.save(weights(head_shapes(32), 6), folder / "aesthetic-model.pth")
    return folder


def test_scores_are_those_of_the_original(base: Path) -> None:
    reward = load_reward("aesthetic", checkpoint=base, base=base)
    assert reward(pictures(), PROMPTS).tolist() == pytest.approx(golden("aesthetic")["scores"], abs=1e-4)
    by_file = load_reward("aesthetic", checkpoint=base / "aesthetic-model.pth", base=base)
    assert torch.equal(by_file(pictures(), ["whatever"] * len(PROMPTS)), reward(pictures(), PROMPTS))


def test_names_and_shapes_of_the_full_size_head() -> None:
    listed = "\n".join(sorted(f"{name} {shape}" for name, shape in head_shapes(768).items()))
    assert golden("aesthetic")["full"] == {"count": 10, "sha256": hashlib.sha256(listed.encode()).hexdigest()}


def test_it_keeps_the_contract(base: Path) -> None:
    check_reward(load_reward("aesthetic", checkpoint=base, base=base), differentiable=True)


def test_another_clips_head_is_refused(base: Path, tmp_path: Path) -> None:
    torch.save(weights(head_shapes(48), 6), tmp_path / "aesthetic-model.pth")
    with pytest.raises(RewardError, match=r"'layers\.0\.weight' as \(1024, 48\); expected \(1024, 32\)"):
        load_reward("aesthetic", checkpoint=tmp_path, base=base)
