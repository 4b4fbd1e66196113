"""Published checkpoints through `load_reward`: the recorded scores, one by one and in any company."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rewards import load_reward
from rewards.llava.published import PublishedReward
from rewards.testing import PROMPTS, check_reward
from tests.rewards.llava.cases import CASES, GOLDENS, SIDES, Library, arrays, opened, picture, prompts_of, tolerance

SIZES = ["wide", "tall", "square", "tiny"]


@pytest.fixture(scope="session")
def load(library: Library) -> Any:
    """Loads the checkpoint of a case with its options and any others, once."""

    @cache
    def loaded(name: str, **options: Any) -> PublishedReward:
        case = CASES[name]
        crops = {} if case["num_crops"] is None else {"num_crops": case["num_crops"]}
        pooling = "mean" if case["mean_hidden_state"] else "eos"
        reward = load_reward(
            "llava-reward", checkpoint=GOLDENS / case["adapter"], base=library.base_folder(case), device="cpu",
            pooling=pooling, layer=case["layer_id"] if case["layer_id"] != 32 else None, **crops, **options,
        )  # fmt: skip
        assert isinstance(reward, PublishedReward)
        return reward

    return loaded


def images_of(case: dict[str, Any], side: str) -> list[Image.Image]:
    key = "image" + ("" if side == "x" else f"_{side}")
    return [opened(GOLDENS / sample[key]) for sample in case["samples"]]


@pytest.mark.parametrize("name", list(CASES))
def test_official_scores_and_probabilities(load: Any, name: str) -> None:
    case = CASES[name]
    reward = load(name, skipca="official")
    outputs = {side: reward.heads(images_of(case, side), prompts_of(case, side)) for side in case["sides"]}
    for side, ours in outputs.items():
        torch.testing.assert_close(ours, arrays(case, side)["reward"].view_as(ours), **tolerance("reward"))
    with np.load(GOLDENS / case["file"]) as file:
        recorded = torch.from_numpy(file["x_probability" if "x" in outputs else "probability"])
    if "x" in outputs:
        torch.testing.assert_close(outputs["x"].sigmoid().view_as(recorded), recorded, **tolerance("probability"))
    elif outputs["c"].shape[1] <= 2:  # of larger heads the published evaluation prints another formula
        pairs = zip(outputs["c"], outputs["r"], strict=True)
        ours = torch.stack([win(reward, torch.stack(pair))[0, 1] for pair in pairs])
        torch.testing.assert_close(ours, recorded.flatten(), **tolerance("probability"))


@pytest.mark.parametrize(
    ("name", "side"), [pair for pair in SIDES if "reward_alone" in arrays(CASES[pair[0]], pair[1])]
)
def test_by_default_a_batch_scores_as_the_official_code_scores_one_by_one(load: Any, name: str, side: str) -> None:
    case = CASES[name]
    ours = load(name).heads(images_of(case, side), prompts_of(case, side))
    torch.testing.assert_close(ours, arrays(case, side)["reward_alone"].view_as(ours), **tolerance("reward"))


@pytest.mark.parametrize("name", ["phi3v.bt_ca.single.crops1", "phi3v.cls.cls3.crops4", "llava.bt.single"])
def test_it_keeps_the_contract(load: Any, name: str) -> None:
    check_reward(load(name), differentiable=True)


def test_a_general_preference_head_keeps_the_contract_within_a_prompt(load: Any) -> None:
    reward = load("phi3v.gpm2_ca.single.crops1")
    assert not reward.absolute
    assert not reward.differentiable  # the mean over all candidates is one half, whatever they are
    check_reward(reward, prompts=[PROMPTS[0]] * 4)


@pytest.mark.parametrize("name", ["phi3v.bt_ca.batch3.crops4", "qwen.bt.single", "llava.bt.single"])
def test_mixed_sizes_and_prompts_score_as_alone(load: Any, name: str) -> None:
    reward = load(name)
    images, prompts = [picture(size) for size in SIZES], [*PROMPTS]
    together = reward(images, prompts)
    alone = torch.cat([reward([image], [prompt]) for image, prompt in zip(images, prompts, strict=True)])
    torch.testing.assert_close(together, alone, **tolerance("reward"))
    assert together.unique().numel() == 4


@pytest.mark.parametrize("name", ["phi3v.bt_ca.batch3.crops4", "qwen.bt.single", "llava.bt.single"])
def test_many_prompts_on_one_picture_score_as_alone(load: Any, name: str) -> None:
    """They share the picture's pass; a copy of the picture does not."""
    reward = load(name)
    image = picture("wide")
    shared = reward([image] * 4, PROMPTS)
    apart = reward([image.copy() for _ in PROMPTS], PROMPTS)
    torch.testing.assert_close(shared, apart, **tolerance("reward"))
    assert shared.unique().numel() == 4


def test_in_official_mode_companions_dilute_a_phi_score(load: Any) -> None:
    """Two pictures of different numbers of visual tokens; the smaller one's score is another one in company."""
    case, side = CASES["phi3v.bt_ca.batch3.crops4"], "c"
    images, prompts = images_of(case, side), prompts_of(case, side)
    official = load(case["id"], skipca="official")
    alone = torch.cat([official([image], [prompt]) for image, prompt in zip(images, prompts, strict=True)])
    together = official(images, prompts)
    torch.testing.assert_close(load(case["id"])(images, prompts), alone, **tolerance("reward"))
    assert (together - alone).abs().max() > 10 * tolerance("reward")["atol"]


@pytest.mark.parametrize(
    "name", ["phi3v.bt_ca.batch3.crops4", "phi3v.gpm2_ca.batch3.crops4", "phi3v.gpm4_ca.single.crops1"]
)
def test_preferences_are_those_of_the_outputs(load: Any, name: str) -> None:
    reward = load(name)
    images = [picture(size) for size in SIZES]
    outputs = reward.heads(images, ["a red fox"] * 4)
    preferences = reward.preference(images, "a red fox")
    tau = CASES[name]["reward_config"]["general_preference_tau"]
    for i, a in enumerate(outputs.double()):
        for j, b in enumerate(outputs.double()):
            s = a[0] - b[0] if len(a) == 1 else sum(a[k] * b[k + 1] - a[k + 1] * b[k] for k in range(0, len(a), 2))
            assert preferences[i, j].item() == pytest.approx(torch.sigmoid(s / tau).item(), abs=1e-4)
    if len(outputs[0]) > 1:
        scores = reward(images, ["a red fox"] * 4)
        torch.testing.assert_close(scores, (preferences.sum(1) - 0.5) / 3)


def test_pictures_in_bfloat16(load: Any) -> None:
    """The published precision; the head stays float32."""
    images, prompts = [picture(size) for size in SIZES], [*PROMPTS]
    exact, coarse = (load("phi3v.bt_ca.single.crops1", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert coarse.scorer.head.value_head.weight.dtype == torch.float32
    expected = exact(images, prompts)
    torch.testing.assert_close(coarse(images, prompts), expected, rtol=0.1, atol=0.1 * expected.abs().max().item())


def win(reward: PublishedReward, outputs: torch.Tensor) -> torch.Tensor:
    from rewards.llava.heads import win_probabilities

    return win_probabilities(outputs, reward.tau)
