"""Names, variants, import paths and entry points; and mistakes in each."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
import torch

from rewards import load_reward, registry, reward_names
from rewards.base import ImagesLike, Scores
from rewards.errors import RewardError


class Constant:
    """A reward of another package."""

    name = "constant"
    absolute = True

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def __call__(self, images: ImagesLike, prompts: list[str]) -> Scores:
        return torch.full((len(prompts),), self.value)


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if a package with the entry point "constant" were installed."""
    entry = EntryPoint("constant", f"{__name__}:Constant", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == registry.GROUP else [])
    registry._targets.cache_clear()
    yield
    registry._targets.cache_clear()


def test_built_in_names() -> None:
    assert {"llava-reward", "pixels", "shapes"} <= set(reward_names())
    assert load_reward("shapes").name == "shapes"


def test_a_variant_and_a_class_by_its_path() -> None:
    assert load_reward("pixels:sharpness").name == "pixels:sharpness"
    reward = load_reward(f"{__name__}:Constant", value=3.0)
    assert reward(torch.zeros(2, 3, 4, 4), ["", ""]).tolist() == [3.0, 3.0]


@pytest.mark.usefixtures("plugged")
def test_an_entry_point_is_a_name_like_any_other() -> None:
    assert "constant" in reward_names()
    assert load_reward("constant", value=2.0)(torch.zeros(1, 3, 4, 4), [""]).tolist() == [2.0]


class Named(Constant):
    """A reward whose checkpoint is a folder."""

    def __init__(self, checkpoint: str | None = "usual", value: float = 1.0) -> None:
        super().__init__(value)
        self.checkpoint = checkpoint


@pytest.mark.parametrize(("written", "checkpoint"), [("1", "1"), ("1e5", "1e5"), ("True", "True"), ("none", None)])
def test_a_checkpoint_named_by_a_number_stays_text(written: str, checkpoint: str | None) -> None:
    reward = load_reward(f"{__name__}:Named(checkpoint={written}, value=2)")
    assert isinstance(reward, Named)
    assert (reward.checkpoint, reward.value) == (checkpoint, 2)


@pytest.mark.parametrize(
    ("spec", "options", "says"),
    [
        ("lava-reward", {}, "did you mean 'llava-reward'"),
        ("pixels:sharpnes", {}, "pixels:sharpness"),
        ("pixels", {}, "pixels:brightness"),
        ("shapes:loose", {}, "no variants"),
        ("llava-reward", {"checkpint": "x"}, "did you mean 'checkpoint'"),
        ("no_such_package.rewards:Mine", {}, "No module named"),
        ("rewards.pixels:Missing", {}, "Missing"),
        ("collections:OrderedDict", {}, "OrderedDict, which is no reward"),
        ("lava", {}, "shapes, "),
        ("", {}, "the name of a reward"),
    ],
)
def test_a_mistake_is_answered_with_the_cure(spec: str, options: dict[str, str], says: str) -> None:
    with pytest.raises(RewardError, match=says):
        load_reward(spec, **options)


def test_import_is_cheap() -> None:
    import subprocess

    code = "import sys, rewards; sys.exit(any(name in sys.modules for name in ('transformers', 'diffusers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
