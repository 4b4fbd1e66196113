"""Prompts that a reward cannot judge are refused before a picture is made."""

from pathlib import Path

import pytest

from bon_search import BestOfNPipeline
from rewards import load_reward
from rewards.base import Reward
from rewards.cache import Cached
from rewards.combine import CalibratedSum, CascadeReward, Constrained, RankSum, check_prompt
from rewards.errors import RewardError
from rewards.geneval import SceneScore
from rewards.ocr import OcrReward
from rewards.single import SingleReward

GENEVAL = SingleReward("geneval", SceneScore(lambda picture, scene: {}, {}), differentiable=False)
OCR = OcrReward(lambda picture: [], "nothing")
PIXELS = load_reward("pixels:sharpness")
COMBINED = [
    OCR,
    CalibratedSum("sum", ((1.0, PIXELS, 1.0), (1.0, OCR, 1.0))),
    RankSum("ranks", ((1.0, PIXELS), (1.0, OCR))),
    CascadeReward("cascade", ((None, PIXELS), (2, OCR))),
    Constrained("bounds", PIXELS, ((OCR, ">", 0.5),)),
]


@pytest.mark.parametrize("reward", COMBINED, ids=lambda reward: reward.name)
def test_a_combination_asks_each_of_its_rewards(reward: Reward) -> None:
    check_prompt(reward, 'a sign that says "OPEN"')
    with pytest.raises(RewardError, match="quotes no text"):
        check_prompt(reward, "a sign")


def test_a_cache_asks_its_reward(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="quotes no text"):
        check_prompt(Cached(OCR, tmp_path / "scores"), "a sign")
    check_prompt(Cached(PIXELS, tmp_path / "scores"), "a sign")


@pytest.mark.parametrize(("reward", "prompt"), [(OCR, "a red circle"), ("shapes", "a cat"), (GENEVAL, "a red circle")])
def test_a_run_does_not_even_start(reward: Reward | str, prompt: str) -> None:
    pipe = BestOfNPipeline.from_pretrained("embedded", reward=reward)
    with pytest.raises(RewardError):
        pipe.start(prompt, n=2)
