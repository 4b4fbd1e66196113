"""Second opinions: agreement and lead by hand, and the alarm when the winner pleases the reward alone."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bon_search.cli import main
from bon_search.errors import SearchError
from bon_search.opinions import spearman, with_opinions
from bon_search.run import Run
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
