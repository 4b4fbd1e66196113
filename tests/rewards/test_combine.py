"""Combined rewards: sums in deviations, ranks, cascades and constraints, by numbers worked out by hand."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rewards import load_reward
from rewards.base import Images, Reward
from rewards.calibration import calibrate, read_calibration, write_calibration
from rewards.combine import REFUSED, RankSum, build, ranks
from rewards.errors import RewardError, SpecError, UnknownRewardError
from rewards.grammar import Named, parse
from rewards.testing import check_reward


class Channel:
    """The mean of one colour channel; counts the pictures it saw."""

    absolute = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen = 0

    def __call__(self, images: Images, prompts: Sequence[str]) -> torch.Tensor:
        self.seen += len(images)
        return images[:, "rgb".index(self.name)].mean(dim=(1, 2))


def made(text: str, **deviations: float) -> tuple[Reward, dict[str, Channel]]:
    channels = {name: Channel(name) for name in "rgb"}
    return build(parse(text), text, lambda named: channels[named.name], deviations), channels


def picture(r: float, g: float = 0.0, b: float = 0.0) -> torch.Tensor:
    return torch.tensor([r, g, b])[:, None, None].expand(3, 2, 2)


IMAGES = torch.stack([picture(0.1, 0.9), picture(0.2, 0.5), picture(0.4, 0.8), picture(0.3, 0.1)])
PROMPTS = ["one"] * 4


def scores(text: str, **deviations: float) -> list[float]:
    reward, _ = made(text, **deviations)
    return [round(score, 5) for score in reward(IMAGES, PROMPTS).tolist()]


def test_a_calibrated_sum_is_in_deviations() -> None:
    assert scores("2*r + g", r=0.1, g=0.5) == [3.8, 5.0, 9.6, 6.2]
    assert made("2*r + g", r=0.1, g=0.5)[0].absolute


def test_a_weight_alone_needs_no_calibration() -> None:
    assert scores("-r") == [-0.1, -0.2, -0.4, -0.3]


def test_without_a_calibration_a_sum_is_one_of_ranks() -> None:
    expected = [0.0 + 1.0, 1 / 3 + 1 / 3, 1.0 + 2 / 3, 2 / 3 + 0.0]
    assert scores("r + g") == [round(value, 5) for value in expected]
    assert scores("rank(r + g)", r=0.1, g=0.5) == scores("r + g", r=0.1)
    assert not made("r + g")[0].absolute


def test_brackets_change_no_unit() -> None:
    assert scores("(2*r) + g", r=0.1, g=0.5) == scores("2*r + g", r=0.1, g=0.5) == [3.8, 5.0, 9.6, 6.2]
    assert scores("g - 2*(r - 0.5*g)", r=0.1, g=0.5) == scores("2*g - 2*r", r=0.1, g=0.5)


@pytest.mark.parametrize("spec", ["(2*r) + g", "(r + b) + g", "g - (0.5*(r + b))"])
def test_what_is_unknown_in_brackets_has_the_whole_ranked(spec: str) -> None:
    """Scores of an unknown scale, or ranks nobody asked for, are never added to deviations."""
    reward, _ = made(spec, g=0.5, b=0.1)
    assert isinstance(reward, RankSum)
    assert {type(part) for _, part in reward.terms} == {Channel}


def test_ranks_that_were_asked_for_are_added_as_they_are() -> None:
    expected = [0 + 0.9 / 0.5, 1 / 3 + 1.0, 1 + 0.8 / 0.5, 2 / 3 + 0.1 / 0.5]
    assert scores("rank(r) + g", g=0.5) == [round(value, 5) for value in expected]


def test_ranks_are_taken_within_a_prompt() -> None:
    reward, _ = made("rank(r)")
    assert reward(IMAGES, ["one", "two", "one", "two"]).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_equal_scores_share_their_rank() -> None:
    assert ranks(torch.tensor([3.0, 1.0, 3.0])).tolist() == [0.75, 0.0, 0.75]
    assert ranks(torch.tensor([3.0])).tolist() == [0.0]


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=9))
def test_ranks_add_up(values: list[int]) -> None:
    assert float(ranks(torch.tensor(values, dtype=torch.float64)).sum()) == pytest.approx(len(values) / 2)


def test_a_cascade_asks_the_dear_reward_for_the_best_alone() -> None:
    reward, channels = made("r:4 > g:2 > b:1")
    result = reward(IMAGES, PROMPTS)
    assert (channels["r"].seen, channels["g"].seen, channels["b"].seen) == (4, 2, 1)
    # red keeps pictures 2 and 3, green prefers 2, which alone is judged by blue; then 3, then 1 before 0 by red
    assert result.argsort(descending=True).tolist() == [2, 3, 1, 0]
    assert float(result[2]) == 0.0


def test_a_cascade_judges_each_prompt_by_itself() -> None:
    reward, channels = made("r > g:1")
    result = reward(IMAGES, ["one", "one", "two", "two"])
    assert channels["g"].seen == 2
    assert result.tolist() == pytest.approx([-0.5, 0.5, 0.8, -0.2])


def test_who_breaks_a_bound_ranks_below_all_others_and_by_how_much() -> None:
    result = torch.tensor(scores("r subject to g < 0.6 and g > 0.2"))
    assert result[1] == pytest.approx(0.2)
    assert result.argsort(descending=True).tolist() == [1, 3, 2, 0]  # off by 0.1, 0.2 and 0.3
    assert float(result[[0, 2, 3]].max()) <= -REFUSED


def test_a_bound_that_is_met_exactly() -> None:
    assert scores("r subject to g <= 0.5")[1] == pytest.approx(0.2)
    assert scores("r subject to g < 0.5")[1] <= -REFUSED


@pytest.mark.parametrize(
    "spec", ["pixels:sharpness - 0.5*pixels:brightness", "pixels:brightness subject to pixels:sharpness > 0", "-shapes"]
)
def test_a_combination_keeps_the_contract_of_rewards(spec: str, tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({"deviations": {"pixels:sharpness": 0.01, "pixels:brightness": 0.1}}))
    check_reward(load_reward(spec, calibration=file))


@pytest.mark.parametrize(
    "spec", ["rank(pixels:sharpness + shapes)", "pixels:sharpness > shapes:2", "rank(shapes) > jpeg"]
)
def test_a_combination_that_ranks_keeps_it_too(spec: str) -> None:
    check_reward(load_reward(spec), prompts=["a red circle"] * 4)


def test_a_deviation_is_pooled_within_prompts() -> None:
    groups = [("one", IMAGES[:2]), ("two", IMAGES[2:])]
    found = calibrate({"r": Channel("r")}, groups)
    assert found["r"] == pytest.approx(math.sqrt((0.005 + 0.005) / 2))  # the prompts' own means do not matter


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    found = calibrate({"r": Channel("r"), "g": Channel("g")}, [("one", IMAGES)], path)
    assert read_calibration(path) == found


def test_a_calibration_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration({"r": 1.0, "g": 2.0}, path)
    write_calibration({"g": 3.0, "b": 4.0}, path)
    assert read_calibration(path) == {"r": 1.0, "g": 3.0, "b": 4.0}
    assert [each.name for each in tmp_path.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize(("name", "content"), [("no/such/folder.json", None), ("notes.json", "[1]"), (".", None)])
def test_a_place_for_a_calibration_is_looked_at_before_a_reward_is_asked(
    name: str, content: str | None, tmp_path: Path
) -> None:
    if content:
        (tmp_path / name).write_text(content)
    channel = Channel("r")
    with pytest.raises(RewardError, match=r"cannot be written|is no calibration"):
        calibrate({"r": channel}, [("one", IMAGES)], tmp_path / name)
    assert channel.seen == 0
    assert not content or (tmp_path / name).read_text() == content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("{", "is no calibration"), ('{"deviations": {"r": 0}}', "must be positive"), ("[]", "is no calibration")],
)
def test_a_wrong_calibration_is_refused(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(RewardError, match=sentence):
        read_calibration(tmp_path / "c.json")


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(RewardError, match="at least two pictures"):
        calibrate({"r": Channel("r")}, [("one", IMAGES[:1])])
    with pytest.raises(RewardError, match="alike"):
        calibrate({"b": Channel("b")}, [("one", IMAGES)])


def test_a_revision_follows_all_that_a_combination_is_made_of() -> None:
    class Version(Channel):
        def __init__(self, name: str, revision: str) -> None:
            super().__init__(name)
            self.revision = revision

    def revision(text: str, version: str = "1", **deviations: float) -> str:
        whole = build(parse(text), "any", lambda named: Version(named.name, version), deviations)
        return str(getattr(whole, "revision", ""))

    texts = ("2*r", "3*r", "rank(r)", "rank(r + g)", "rank(r + 2*g)", "r:2 > g", "r:3 > g", "r subject to g < 1",
             "r subject to g < 2")  # fmt: skip
    told = [revision(text) for text in texts] + [revision("2*r + g", r=1, g=1), revision("2*r + g", r=1, g=2)]
    assert len(set(told)) == len(told)
    assert all(revision(text) == revision(text) != revision(text, "2") for text in texts)
    assert {revision(text, version="") for text in texts} == {""}  # nobody could tell


@pytest.mark.parametrize("spec", ["pixels:sharpness", "shapes", "jpeg", "llava-reward", "rank(shapes + jpeg)"])
def test_what_is_here_has_a_revision(spec: str) -> None:
    first, again = load_reward(spec), load_reward(spec)
    assert first.revision == again.revision != ""  # type: ignore[attr-defined]


def redness(images: Images, prompts: Sequence[str]) -> torch.Tensor:
    """A plain function that scores."""
    return images[:, 0].mean(dim=(1, 2))


def greenness(pictures: Images, texts: Sequence[str]) -> torch.Tensor:
    """Another, whose arguments have other names."""
    return pictures[:, 1].mean(dim=(1, 2))


@pytest.mark.parametrize(
    ("spec", "said", "under"),
    [
        ("0.7*jpeg + 0.3*pixels:sharpnes", "did you mean 'pixels:sharpness'", "pixels"),
        ("jpeg subject to shap > 1", "did you mean 'shapes'", "shap"),
        ("rank(shapes + jpeg(qualty=3))", "did you mean 'quality'", "jpeg"),
    ],
)
def test_a_name_that_is_not_there_has_a_caret_and_the_nearest_one(spec: str, said: str, under: str) -> None:
    with pytest.raises(UnknownRewardError, match=said) as caught:
        load_reward(spec)
    _, line, caret = str(caught.value).split("\n")
    assert (line[2:], caret.index("^") - 2) == (spec, spec.index(under))


def test_a_plain_function_is_a_reward() -> None:
    assert load_reward("tests.rewards.test_combine:greenness")(IMAGES, PROMPTS).tolist() == pytest.approx(
        [0.9, 0.5, 0.8, 0.1]
    )
    reward = load_reward("tests.rewards.test_combine:redness")
    assert reward(IMAGES, PROMPTS).tolist() == pytest.approx([0.1, 0.2, 0.4, 0.3])
    check_reward(reward)
    both = load_reward("rank(tests.rewards.test_combine:redness + pixels:brightness)")
    assert not both.absolute


def test_an_unknown_name_in_a_sum_has_a_caret_and_a_hint() -> None:
    with pytest.raises(UnknownRewardError, match="did you mean 'pixels'") as caught:
        load_reward("0.5*pixels:sharpness + 0.5*pixel:sharpness")
    assert str(caught.value).split("\n")[-1].index("^") == len("  0.5*pixels:sharpness + 0.5*")
    with pytest.raises(SpecError):
        load_reward("pixels:sharpness +")


def test_options_go_to_the_rewards_that_have_them() -> None:
    with pytest.raises(UnknownRewardError, match="option 'devise'"):
        load_reward("pixels:sharpness + pixels:brightness", devise="cpu")
    with pytest.raises(UnknownRewardError, match=r"no option 'power'"):
        load_reward("pixels:sharpness(power=2)")


def test_a_sum_of_the_same_reward_twice_is_one_of_two() -> None:
    assert parse("a + a") == parse("1*a + 1*a")
    assert [named.at for named in (Named("a"), Named("a", at=4))] == [0, 4]
