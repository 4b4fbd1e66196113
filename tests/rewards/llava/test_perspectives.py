"""Several checkpoints over one backbone score as each of them alone."""

import warnings
from typing import Any

import pytest
import torch

from rewards import load_reward
from rewards.errors import CheckpointError, RewardError
from rewards.llava.perspectives import Perspectives, load_perspectives
from rewards.llava.reward import LlavaReward
from rewards.testing import check_reward
from tests.rewards.llava.cases import CASES, GOLDENS, Library, picture, tolerance

PHI = {
    "alignment": GOLDENS / "phi3v/bt_ca",
    "safety": GOLDENS / "phi3v/cls",
    "fidelity": GOLDENS / "phi3v/bt_ca_visionlora",
    "overall": GOLDENS / "phi3v/gpm2_ca",
}
NAMES = ["wide", "tall", "square", "tiny"]
PROMPT = "a red fox"


@pytest.fixture(scope="module")
def perspectives() -> Perspectives:
    return LlavaReward.perspectives(PHI, base=GOLDENS / "phi3v/base", num_crops=1, batch_size=2)


def alone(name: str, **options: Any) -> Any:
    options = {"base": GOLDENS / "phi3v/base", "num_crops": 1, **options}
    return load_reward("llava-reward", checkpoint=PHI[name], device="cpu", **options)


def test_every_column_is_that_checkpoints_own(perspectives: Perspectives) -> None:
    """Twice over, so that what the first left active does not matter."""
    images, prompts = [picture(name) for name in NAMES], [PROMPT] * 4
    for _ in range(2):
        columns = perspectives(images, prompts)
        assert list(columns) == list(PHI)
        for name, column in columns.items():
            torch.testing.assert_close(column, alone(name)(images, prompts), **tolerance("reward"))
    assert not any(reward.differentiable for reward in perspectives.rewards.values())
    used_alone = perspectives.rewards["alignment"](images, prompts)
    torch.testing.assert_close(used_alone, columns["alignment"], **tolerance("reward"))


@pytest.mark.parametrize(("family", "names"), [("qwen", ["bt", "cls"]), ("llava", ["bt", "gpm2"])])
def test_other_backbones(library: Library, family: str, names: list[str]) -> None:
    base = library.base_folder(CASES[f"{family}.bt.single"])
    several = load_perspectives({name: GOLDENS / family / name for name in names}, base=base)
    images = [picture(name) for name in NAMES[1:]]
    for name, column in several(images, [PROMPT] * 3).items():
        own = load_reward("llava-reward", checkpoint=GOLDENS / family / name, base=base, device="cpu")
        torch.testing.assert_close(column, own(images, [PROMPT] * 3), **tolerance("reward"))


@pytest.mark.parametrize("skipca", [None, "official"])
def test_a_qwen_with_skipca_scores_as_it_does_alone(library: Library, skipca: Any) -> None:
    """By default as the published code scores one picture at a time; "official" batches have companions."""
    base = library.base_folder(CASES["qwen.bt.single"])
    names = {name: GOLDENS / "qwen" / name for name in ("bt_ca", "cls")}
    images, prompts = [picture(name) for name in NAMES[1:]], [PROMPT, "two wooden boats on a calm lake", PROMPT]
    several = load_perspectives(names, base=base, skipca=skipca)
    for name, column in several(images, prompts).items():
        own = load_reward("llava-reward", checkpoint=names[name], base=base, device="cpu", skipca=skipca)
        torch.testing.assert_close(column, own(images, prompts), **tolerance("reward"))


def test_compiled_perspectives_give_the_same(perspectives: Perspectives, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced only; what is traced follows the perspective whose turn it is."""
    import rewards.llava.perspectives as module

    torch.compiler.reset()
    compiler = module.compile_layers
    monkeypatch.setattr(module, "compile_layers", lambda backbone: compiler(backbone, backend="eager"))
    names = {name: PHI[name] for name in ("alignment", "safety")}
    compiled = load_perspectives(names, base=GOLDENS / "phi3v/base", num_crops=1, compile=True)
    assert all(hasattr(layer, "_steps") for layer in compiled.rewards["safety"].scorer.backbone.layers)
    for _ in range(2):
        for name, column in compiled([picture("tiny")], [PROMPT]).items():
            expected = perspectives.rewards[name]([picture("tiny")], [PROMPT])
            torch.testing.assert_close(column, expected, **tolerance("reward"))


def test_empty_prompts_and_other_options(perspectives: Perspectives) -> None:
    with pytest.raises(RewardError, match="empty prompt"):
        perspectives([picture("tiny")] * 2, ["", ""])
    allowing = load_perspectives(
        {"alignment": PHI["alignment"]}, base=GOLDENS / "phi3v/base", num_crops=1, allow_empty=True, dtype="float32"
    )
    expected = alone("alignment", allow_empty=True)([picture("tiny")], [""])
    torch.testing.assert_close(allowing([picture("tiny")], [""])["alignment"], expected, **tolerance("reward"))
    with pytest.raises(RewardError, match="expected 'masked' or 'official'"):
        load_perspectives(PHI, base=GOLDENS / "phi3v/base", skipca="paper")  # type: ignore[arg-type]


def test_a_frozen_vision_tower_sees_a_picture_once(perspectives: Perspectives, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the four has a tower of its own."""
    backbone: Any = perspectives._shared.backbone
    seen: list[int] = []
    features = backbone.features

    def counted(pictures: Any) -> Any:
        seen.append(len(pictures))
        return features(pictures)

    monkeypatch.setattr(backbone, "features", counted)
    images = [picture(name) for name in NAMES]
    perspectives.columns(images, [PROMPT] * 4, ["alignment", "safety", "overall"])
    assert sum(seen) == 4
    perspectives(images, [PROMPT] * 4)
    assert sum(seen) == 4 + 8
    assert not perspectives._shared._seen


def test_a_weighted_sum_and_a_limit(perspectives: Perspectives) -> None:
    images, prompts = [picture(name) for name in NAMES], [PROMPT] * 4
    columns = perspectives(images, prompts)
    limit = columns["safety"].sort().values[1].item() + 1e-6  # two reach it
    reward = perspectives.combined({"alignment": 2.0, "fidelity": -0.5}, at_least={"safety": limit})
    scores = reward(images, prompts)
    allowed = columns["safety"] >= limit
    assert allowed.sum() == 2
    expected = 2 * columns["alignment"] - 0.5 * columns["fidelity"]
    torch.testing.assert_close(scores[allowed], expected[allowed])
    assert scores[~allowed].max() < scores[allowed].min() - 1000
    assert reward.name == "llava-reward:alignment+fidelity+safety"
    again, other = (perspectives.combined({"alignment": weight}).revision for weight in (1.0, 2.0))
    assert perspectives.combined({"alignment": 1.0}).revision == again != other


def test_a_combination_keeps_the_contract(perspectives: Perspectives) -> None:
    check_reward(perspectives.combined({"alignment": 1.0, "safety": 0.5}))
    assert not perspectives.combined({"overall": 1.0}).absolute


@pytest.mark.parametrize(
    ("weights", "limits", "message"),
    [
        ({}, {}, "no weights"),
        ({"beauty": 1.0}, {}, "perspective 'beauty'; expected one of alignment"),
        ({"safety": 1.0}, {"overall": 0.5}, "only compares"),
    ],
)
def test_combinations_that_are_refused(
    perspectives: Perspectives, weights: dict[str, float], limits: dict[str, float], message: str
) -> None:
    with pytest.raises(RewardError, match=message):
        perspectives.combined(weights, at_least=limits)


def test_what_cannot_share_a_backbone() -> None:
    base = GOLDENS / "phi3v/base"
    with pytest.raises(CheckpointError, match="trained on llava_next"):
        load_perspectives({"a": GOLDENS / "phi3v/cls", "b": GOLDENS / "llava/bt"}, base=base)
    with pytest.raises(CheckpointError, match="'a' is a full fine-tune"):
        load_perspectives({"a": GOLDENS / "phi3v/bt_ca_full"}, base=base)
    with pytest.raises(RewardError, match="no checkpoints"):
        load_perspectives({}, base=base)


def test_a_checkpoint_of_one_perspective_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_perspectives({"fidelity": PHI["fidelity"]}, base=GOLDENS / "phi3v/base")
