"""What a command line says of its rewards: which of them is meant, and what each of them gets."""

import pytest

from bon_search import evaluate_cli
from bon_search.asked import Wishes, is_embedded, shares
from rewards.errors import UnknownRewardError


@pytest.mark.parametrize(
    ("spec", "embedded"),
    [
        ("llava-reward", True),
        ("llava-reward:embedded", True),
        ("llava-reward:embedded-fidelity", True),
        ("rank(shapes + llava-reward:embedded-alignment)", True),
        ("llava-reward:alignment", False),
        ("llava-reward@runs/mine", False),
        ("pixels:sharpness+llava-reward@runs/mine", False),
        ("llava-reward(checkpoint=runs/mine)", False),
        ("rank(shapes + jpeg)", False),
    ],
)
def test_the_embedded_reward_is_known_by_all_its_names(spec: str, embedded: bool) -> None:
    assert is_embedded(spec) is embedded


def test_each_of_several_rewards_gets_what_it_has() -> None:
    wishes = Wishes({"checkpoint": "runs/mine", "quality": 80}, device="cuda", allow_empty=True)
    found = shares(["llava-reward", "jpeg", "pixels:sharpness", "rank(llava-reward + jpeg)"], wishes)
    assert found == {
        "llava-reward": Wishes({"checkpoint": "runs/mine"}, device="cuda", allow_empty=True),
        "jpeg": Wishes({"quality": 80}, allow_empty=True),
        "pixels:sharpness": Wishes(allow_empty=True),
        "rank(llava-reward + jpeg)": wishes,
    }


@pytest.mark.parametrize(
    ("specs", "wishes", "sentence"),
    [
        (["llava-reward", "jpeg"], Wishes({"qualty": 80}), "no option 'qualty'"),
        (["jpeg", "pixels:sharpness"], Wishes(device="cuda"), "no option 'device'"),
        (["llava-reward", "pixels:sharpness@runs/mine"], Wishes(), "no option 'checkpoint'"),
        (["llava-reward", "jpeg(qualty=3)"], Wishes(), "did you mean 'quality'"),
        (["llava-reward", "shapes:loose"], Wishes(), "no variants"),
    ],
)
def test_what_no_reward_has_is_refused_before_one_is_loaded(specs: list[str], wishes: Wishes, sentence: str) -> None:
    with pytest.raises(UnknownRewardError, match=sentence):
        shares(specs, wishes)


def test_a_checkpoint_for_all_is_for_those_that_take_one() -> None:
    given = ["llava-reward", "pixels:sharpness", "llava-reward@other"]
    arguments = evaluate_cli.parser().parse_args(
        ["--data", "d", "--checkpoint", "mine", *(word for spec in given for word in ("--reward", spec))]
    )
    assert list(evaluate_cli._asked(arguments)) == ["llava-reward@mine", "pixels:sharpness", "llava-reward@other"]
