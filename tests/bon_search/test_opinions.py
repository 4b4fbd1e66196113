"""Second opinions: agreement and lead by hand, and the alarm when the winner pleases the reward alone."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bon_search.agreement import spearman
from bon_search.cli import main
from bon_search.errors import SearchError
from bon_search.opinions import agreement_of, with_opinions
from bon_search.run import Run
from bon_search.score_cli import main as score_images
from rewards.errors import RewardError
from tests.bon_search.toy import Brightness, toy_run


class Darkness(Brightness):
    """The opposite of the reward."""

    name = "toy-darkness"

    def __call__(self, images: object, prompts: list[str]) -> torch.Tensor:
        from rewards.base import as_images

        return -as_images(images).mean(dim=(1, 2, 3))  # type: ignore[arg-type]


def finished(n: int = 8) -> Run:
    run = toy_run(n)
    list(run)
    return run


def test_the_opposite_opinion_raises_the_alarm() -> None:
    result = with_opinions(finished().result, [Darkness()])
    (opinion,) = result.opinions
    assert opinion.agreement == pytest.approx(-1, abs=0.05)  # to 8 bits two candidates may be equal
    assert opinion.lead < 0
    assert "a candidate at random" in opinion.sentence
    scores = torch.tensor(opinion.scores)
    assert opinion.lead == pytest.approx(float((scores[0] - scores.mean()) / scores.std(correction=0)))
    assert result.cost.rewards == 16


def test_a_reward_that_only_ranks_has_no_opinion() -> None:
    jury = Darkness()
    jury.absolute = False
    with pytest.raises(SearchError, match="only ranks"):
        with_opinions(finished(2).result, [jury])


class Breaks(Darkness):
    def __call__(self, images: object, prompts: list[str]) -> torch.Tensor:
        raise KeyError("weights")


def test_a_held_out_reward_that_breaks_is_a_sentence() -> None:
    with pytest.raises(RewardError, match=r"The judge toy-darkness failed \(KeyError: 'weights'\)"):
        with_opinions(finished(2).result, [Breaks()])


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert math.isnan(spearman([1, 1], [1, 2]))


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=12, unique=True))
def test_spearman_sees_order_alone(values: list[float]) -> None:
    assert spearman(values, [math.atan(value) for value in values]) == pytest.approx(1) or len(
        {math.atan(value) for value in values}
    ) < len(values)


def test_the_command_tells_and_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--n", "3", "--steps", "3", "--reward", "pixels:brightness", "--out", str(tmp_path / "run")]
    assert main([*settings, "--held-out=-pixels:brightness", "two green stars"]) == 0
    assert "winner may please the reward alone" in capsys.readouterr().err
    (opinion,) = json.loads((tmp_path / "run" / "result.json").read_text())["opinions"]
    assert len(opinion["scores"]) == 3
    assert opinion["lead"] < 0


def test_several_opinions_make_a_table_of_agreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = with_opinions(finished().result, [Darkness(), Brightness()])
    found = agreement_of(result)
    assert found.rewards == ("toy-brightness", "toy-darkness", "toy-brightness")
    assert torch.tensor(found.spearman) == pytest.approx(torch.tensor([[1, -1, 1], [-1, 1, -1], [1, -1, 1]]), abs=0.05)
    settings = ["--n", "3", "--steps", "3", "--reward", "pixels:brightness", "--out", str(tmp_path / "run")]
    held_out = ["--held-out=-pixels:brightness", "--held-out", "shapes"]
    assert main([*settings, *held_out, "--score-cache", str(tmp_path / "cache"), "two green stars"]) == 0
    assert "agreement of the rankings (Spearman, 3 pictures)" in capsys.readouterr().err
    told = json.loads((tmp_path / "run" / "result.json").read_text())["agreement"]
    assert told["rewards"] == ["pixels:brightness", "-pixels:brightness", "shapes"]
    assert told["spearman"][0][:2] == pytest.approx([1, -1])
    assert [told["spearman"][k][k] for k in range(3)] in ([1, 1, 1], [1, 1, None])
    score = ["--reward", "shapes", "--score-cache", str(tmp_path / "cache"), "--top", "3"]
    with pytest.MonkeyPatch.context() as patch:  # the saved pictures are those that the held-out reward has seen
        patch.setattr("rewards.shapes.reward.verify_batch", lambda *_: pytest.fail("scored again"))
        assert score_images([str(tmp_path / "run"), *score]) == 0
