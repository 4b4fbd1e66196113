"""Searches under rewards that only compare, and under several perspectives at once."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bon_search import BestOfNPipeline
from bon_search.cli import main
from rewards import load_reward
from rewards.llava.heads import win_probabilities
from rewards.llava.perspectives import Perspectives
from rewards.llava.reward import LlavaReward
from rewards.preferences import rank

GOLDENS = Path(__file__).parents[1] / "rewards/llava/goldens/phi3v"
PROMPT = "a red circle"


class Circle:
    """Rock, paper, scissors by the brightness of the pictures: each of three beats the one before."""

    name = "circle"
    absolute = False

    def heads(self, images: Tensor, prompts: Any) -> Tensor:
        places = images.mean((1, 2, 3)).argsort().argsort()  # 0 for the darkest
        angle = places * 2 * torch.pi / 3
        return torch.stack([angle.cos(), angle.sin()], dim=1) * (1 + 0.1 * places[:, None])

    def chances(self, outputs: Tensor, others: Tensor | None = None) -> Tensor:
        return win_probabilities(outputs, 1.0, others=others)

    def __call__(self, images: Tensor, prompts: Any) -> Tensor:
        raise AssertionError("asked for scores")


@pytest.fixture(scope="module")
def pipe() -> Any:
    from pipelines import load_pipeline

    return load_pipeline("embedded", device="cpu")


@pytest.fixture(scope="module")
def gpm() -> Any:
    return load_reward("llava-reward", checkpoint=GOLDENS / "gpm2", base=GOLDENS / "base", device="cpu", num_crops=1)


def test_best_of_n_ranks_by_the_matrix_of_preferences(pipe: Any, gpm: Any) -> None:
    out = BestOfNPipeline(pipe, gpm)(PROMPT, n=4, steps=2)
    by_seed = sorted(out.candidates, key=lambda candidate: candidate.seed)
    ranking = rank(gpm.preference([candidate.image for candidate in by_seed], PROMPT))
    assert [candidate.seed for candidate in out.candidates] == [by_seed[k].seed for k in ranking.order]
    torch.testing.assert_close(
        torch.tensor([candidate.score for candidate in by_seed]), ranking.scores.float(), atol=1e-3, rtol=0
    )
    assert out.cost.rewards == 4
    assert bool(out.report) == bool(ranking.cycle)


def test_one_candidate_is_preferred_to_nobody(pipe: Any, gpm: Any) -> None:
    out = BestOfNPipeline(pipe, gpm)(PROMPT, n=1, steps=2)
    assert out.best.score == 0.5
    assert out.report == ""


def test_a_cycle_is_printed_and_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reward = ["--reward", "tests.bon_search.test_comparisons:Circle"]
    assert main(["--n", "3", "--steps", "2", *reward, "--out", str(tmp_path / "run"), PROMPT]) == 0
    saved = json.loads((tmp_path / "run/result.json").read_text())
    cycle = (
        r"seed \d is first of 3 by borda, but the preferences are cyclic \(seed 0 over seed \d over seed \d over seed 0"
    )
    assert re.search(cycle, saved["report"])
    assert f"generate-best: {saved['report']}" in capsys.readouterr().err
    scores = [row["score"] for row in saved["candidates"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1.5)


@pytest.fixture(scope="module")
def perspectives() -> Perspectives:
    folders = {"alignment": "bt_ca", "fidelity": "bt_ca_visionlora", "safety": "cls", "overall": "gpm2_ca"}
    return LlavaReward.perspectives(
        {name: GOLDENS / folder for name, folder in folders.items()}, base=GOLDENS / "base", device="cpu", num_crops=1
    )


@pytest.mark.parametrize(
    ("weights", "limited"),
    [({"fidelity": 1.0}, False), ({"alignment": 2.0, "fidelity": -0.5}, False), ({"alignment": 1.0}, True)],
)
def test_perspectives_drive_a_search(
    pipe: Any, perspectives: Perspectives, weights: Mapping[str, float], *, limited: bool
) -> None:
    """One of them, a weighted sum, and safety as a limit that half of the candidates reach."""
    plain = BestOfNPipeline(pipe, perspectives.combined({"safety": 1.0}))(PROMPT, n=4, steps=2)
    limits = {"safety": plain.candidates[1].score - 1e-6} if limited else {}
    reward = perspectives.combined(weights, at_least=limits)
    out = BestOfNPipeline(pipe, reward)(PROMPT, n=4, steps=2)
    columns = perspectives([candidate.image for candidate in out.candidates], [PROMPT] * 4)
    total = sum(weight * columns[name] for name, weight in weights.items())
    scores = torch.tensor([candidate.score for candidate in out.candidates])
    allowed = columns["safety"] >= limits.get("safety", -torch.inf)
    assert allowed.tolist() == ([True, True, False, False] if limited else [True] * 4)
    torch.testing.assert_close(scores[allowed], total[allowed], atol=1e-3, rtol=0)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert out.recipe.reward_revision == reward.revision


def test_a_perspective_alone_and_one_that_compares_drive_a_search_too(pipe: Any, perspectives: Perspectives) -> None:
    out = BestOfNPipeline(pipe, perspectives.rewards["overall"])(PROMPT, n=3, steps=2)
    assert sum(candidate.score for candidate in out.candidates) == pytest.approx(1.5, abs=1e-5)
    mixed = BestOfNPipeline(pipe, perspectives.combined({"overall": 1.0, "alignment": 0.1}))(PROMPT, n=3, steps=2)
    assert not perspectives.combined({"overall": 1.0, "alignment": 0.1}).absolute
    assert len(mixed.candidates) == 3
