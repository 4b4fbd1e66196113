"""The table says of every standard reward what there is to say."""

from rewards import reward_names
from rewards.catalogue import CATALOGUE
from rewards.registry import BUILT_IN
from rewards.vision import VisionReward

STANDARD = {
    "aesthetic", "clipscore", "hpsv2", "hpsv3", "imagereward", "mps", "pickscore", "unifiedreward", "vqascore",
}  # fmt: skip


def test_every_standard_reward_is_registered_and_described() -> None:
    assert set(reward_names()) >= STANDARD
    assert set(CATALOGUE) >= STANDARD
    assert set(CATALOGUE) == set(BUILT_IN)
    for name, entry in CATALOGUE.items():
        assert entry.measures, name
        assert entry.range, name
        assert entry.licence, name
        assert entry.size, name
        assert entry.checked, name


def test_gradients_are_claimed_where_the_classes_have_them() -> None:
    for name in ("aesthetic", "clipscore", "hpsv2", "imagereward", "mps", "pickscore"):
        assert CATALOGUE[name].differentiable == VisionReward.differentiable
    assert not CATALOGUE["unifiedreward"].differentiable
