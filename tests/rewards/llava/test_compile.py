"""Decoder layers through `torch.compile` give the same numbers, in every way in which they are walked."""

from typing import Any

import pytest
import torch

from rewards import load_reward
from rewards.errors import RewardError
from rewards.llava.decoder import compile_layers
from tests.rewards.llava.cases import GOLDENS, picture, tolerance


def load_phi(**options: Any) -> Any:
    folder = GOLDENS / "phi3v"
    return load_reward(
        "llava-reward", checkpoint=folder / "bt_ca", base=folder / "base", device="cpu", num_crops=1, **options
    )


def test_numbers_stay_and_one_function_serves_all_layers() -> None:
    """Traced only, not turned into machine code, which takes a compiler and its time."""
    plain, compiled = load_phi(), load_phi()
    torch.compiler.reset()
    compile_layers(compiled.scorer.backbone, backend="eager")
    images, prompts = [picture(name) for name in ("wide", "tiny")], ["a cat", "two dogs"]
    for given in (images[:2], images[:1] * 2):  # apart, and behind a shared beginning
        torch.testing.assert_close(compiled(given, prompts), plain(given, prompts), **tolerance("reward"))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_the_option_reaches_every_layer() -> None:
    layers = load_phi(compile=True).scorer.backbone.layers
    assert len({layer._steps for layer in layers}) == 1
    assert not any(hasattr(layer, "_steps") for layer in load_phi().scorer.backbone.layers)
    with pytest.raises(RewardError, match="Got compile, which only checkpoints in the published layout have"):
        load_reward("llava-reward", compile=True)
