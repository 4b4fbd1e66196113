"""Scores that are kept: nothing is scored twice, nothing is mistaken for something else."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bon_search.cli import main
from rewards import RewardError, load_reward
from rewards.base import as_images, check_prompts
from rewards.cache import Cached, cached
from rewards.combine import CalibratedSum, CascadeReward, Constrained, RankSum
from rewards.function import FunctionReward
from rewards.testing import check_reward


class Counted:
    """Mean pixel and the prompt's length; remembers how many pictures each call brought."""

    differentiable = True

    def __init__(
        self, name: str = "counted", revision: str = "1", *, faulty: bool = False, absolute: bool = True
    ) -> None:
        self.name, self.revision, self.faulty, self.absolute = name, revision, faulty, absolute
        self.asked: list[int] = []

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        pixels = as_images(images)
        check_prompts(pixels, prompts)
        self.asked.append(len(pixels))
        scores = pixels.float().mean((1, 2, 3)) / 3 + torch.tensor([float(len(prompt)) for prompt in prompts])
        return scores * float("nan") if self.faulty else scores


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 5, 7, generator=torch.Generator().manual_seed(1))


def test_contract(tmp_path: Path) -> None:
    for _ in range(2):  # the second time from the file
        check_reward(Cached(Counted(), tmp_path / "scores"), differentiable=True)
    check_reward(Cached(load_reward("jpeg"), tmp_path / "scores"), differentiable=False)


def test_nothing_is_scored_twice_and_the_numbers_are_the_same_to_the_bit(tmp_path: Path) -> None:
    first, later = Counted(), Counted()
    images, prompts = pictures(), ["a", "bb", "a"]
    scores = Cached(first, tmp_path / "new" / "scores")(images, prompts)
    assert scores.equal(Counted()(images, prompts))
    again = Cached(later, tmp_path / "new" / "scores")
    assert again(images.flip(0), prompts[::-1]).flip(0).equal(scores)
    assert (first.asked, later.asked) == ([3], [])
    more = again(pictures(5), ["a", "bb", "a", "a", "a"])  # the first three are known
    assert more.equal(Counted()(pictures(5), ["a", "bb", "a", "a", "a"]))
    assert later.asked == [2]


def test_a_picture_that_comes_twice_in_one_batch_is_scored_once(tmp_path: Path) -> None:
    reward = Counted()
    scores = Cached(reward, tmp_path / "scores")(pictures(2)[[0, 1, 0]], ["a"] * 3)
    assert reward.asked == [2]
    assert scores[0] == scores[2] != scores[1]


def test_another_picture_prompt_name_or_revision_is_another_score(tmp_path: Path) -> None:
    image = pictures(1)
    Cached(Counted(), tmp_path / "scores")(image, ["a"])
    nudged = image.clone()
    nudged[0, 0, 0, 0] = torch.nextafter(image[0, 0, 0, 0], torch.tensor(2.0))
    others = [
        (Counted(), nudged, "a"),
        (Counted(), image.reshape(1, 3, 7, 5), "a"),
        (Counted(), image, "A"),
        (Counted("other"), image, "a"),
        (Counted(revision="2"), image, "a"),
    ]
    for reward, pixels, prompt in others:
        Cached(reward, tmp_path / "scores")(pixels, [prompt])
        assert reward.asked == [1]


def test_pictures_of_every_form_are_known_again(tmp_path: Path) -> None:
    array = (pictures(2) * 255).byte().permute(0, 2, 3, 1).numpy()
    for images in (array, [Image.fromarray(np.ascontiguousarray(picture)) for picture in array]):
        reward = Counted()
        cached = Cached(reward, tmp_path / "scores")
        assert cached(images, ["a", "a"]).equal(cached(images, ["a", "a"]))
        assert len(reward.asked) <= 1


def test_one_drawing_in_two_palettes_is_two_pictures(tmp_path: Path) -> None:
    drawing = Image.new("P", (4, 4))
    scores = []
    for colour in ((0, 0, 0), (255, 255, 255)):
        drawing.putpalette(colour)
        scores.append(Cached(Counted(), tmp_path / "scores")([drawing.copy()], [""]).item())
    assert scores == pytest.approx([0, 1 / 3])


def test_a_gradient_passes_through_known_pictures(tmp_path: Path) -> None:
    reward = Counted()
    cached = Cached(reward, tmp_path / "scores")
    cached(pictures(), ["a"] * 3)
    leaf = pictures().requires_grad_()
    (gradient,) = torch.autograd.grad(cached(leaf, ["a"] * 3).sum(), leaf)
    torch.testing.assert_close(gradient, torch.full_like(leaf, 1 / (3 * 3 * 5 * 7)))
    assert reward.asked == [3, 3]


def test_a_score_that_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    assert Cached(Counted(faulty=True), tmp_path / "scores")(pictures(1), ["a"]).isnan().all()
    mended = Counted()
    assert Cached(mended, tmp_path / "scores")(pictures(1), ["a"]).isfinite().all()
    assert mended.asked == [1]


def test_what_is_wrong_is_refused_although_the_pictures_are_known(tmp_path: Path) -> None:
    cached = Cached(Counted(), tmp_path / "scores")
    cached(pictures(), ["a"] * 3)
    for images, prompts in ((pictures(), ["a"] * 2), (pictures(), "aaa"), ([], [])):
        with pytest.raises(RewardError):
            cached(images, prompts)


def scored_by(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """A plain function without a revision."""
    return images.mean((1, 2, 3))


@pytest.mark.parametrize(
    ("reward", "why"),
    [
        (FunctionReward(scored_by, "tests:scored_by"), "no revision"),
        (Counted(absolute=False), "other candidates"),
    ],
)
def test_rewards_whose_scores_cannot_be_kept(reward: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=why):
        cached(reward, tmp_path / "scores")
    with pytest.raises(RewardError, match=why):
        cached(RankSum("both", ((1.0, Counted()), (1.0, reward))), tmp_path / "scores")


def test_a_judge_keeps_its_own_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    for spec in ("judge(model=any)", "judge:pairwise(model=any)"):
        judge = load_reward(spec)
        assert cached(judge, tmp_path / "scores") is judge
        with pytest.raises(RewardError, match="its own answers"):
            Cached(judge, tmp_path / "scores")


def test_other_weights_ranks_and_bounds_ask_no_reward_again(tmp_path: Path) -> None:
    """Of a combination each reward keeps its own scores."""
    one, two = Counted("one"), Counted("two")
    cached(CalibratedSum("sum", ((0.7, one, 1.0), (0.3, two, 2.0))), tmp_path / "scores")(pictures(), ["a"] * 3)
    assert (one.asked, two.asked) == ([3], [3])
    others = (
        CalibratedSum("other", ((0.1, two, 2.0), (0.9, one, 3.0))),
        RankSum("ranks", ((1.0, one), (1.0, two))),
        CascadeReward("cascade", ((3, one), (1, two))),
        Constrained("bound", one, ((two, "<", 1.2),)),
    )
    for reward in others:
        kept = cached(reward, tmp_path / "scores")
        expected = reward(pictures(), ["a"] * 3)
        asked = len(one.asked), len(two.asked)
        assert kept(pictures(), ["a"] * 3).equal(expected)
        assert (len(one.asked), len(two.asked)) == asked
        assert (kept.name, kept.absolute) == (reward.name, reward.absolute)
        assert kept.revision == reward.revision != ""  # type: ignore[attr-defined]


def test_a_saved_picture_is_the_same_as_a_file_and_as_a_tensor(tmp_path: Path) -> None:
    picture = Image.fromarray(np.ascontiguousarray((pictures(1)[0] * 255).byte().permute(1, 2, 0).numpy()))
    reward = Counted()
    kept = Cached(reward, tmp_path / "scores")
    assert kept([picture], ["a"]).equal(kept(as_images([picture]), ["a"]))
    assert reward.asked == [1]


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be looked at")
    with pytest.raises(RewardError, match="cannot keep scores"):
        Cached(Counted(), tmp_path / "text")
    assert (tmp_path / "text").read_text().startswith("not a database")


def test_a_file_that_is_damaged_on_the_way_costs_no_score(tmp_path: Path) -> None:
    cached = Cached(Counted(), tmp_path / "scores")
    (tmp_path / "scores").write_text("gone " * 1000)
    with pytest.warns(UserWarning, match="scores"):
        assert cached(pictures(), ["a"] * 3).equal(Counted()(pictures(), ["a"] * 3))


WRITER = """
import sys, torch
from rewards import load_reward
from rewards.cache import Cached, cached
from rewards.combine import CalibratedSum, CascadeReward, Constrained, RankSum
from rewards.function import FunctionReward
reward = Cached(load_reward("jpeg"), sys.argv[1])
for k in range(30):
    picture = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(k))
    reward(picture, [sys.argv[2] if k % 2 else "both"])
"""


def test_two_processes_share_one_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "scores")]
    processes = [subprocess.Popen([*command, name], stderr=subprocess.PIPE) for name in ("one", "two")]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, b"")
    database = sqlite3.connect(tmp_path / "scores")
    assert database.execute("SELECT count(*) FROM scores").fetchone() == (15 + 2 * 15,)
    database.close()


def test_a_second_run_of_generate_best_scores_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = ["--score-cache", str(tmp_path / "scores"), "a red circle"]
    command = ["--n", "2", "--steps", "2", "--reward", "jpeg", *keep]
    assert main([*command, "--out", str(tmp_path / "1")]) == 0
    monkeypatch.setattr("rewards.jpeg.JpegReward._size", lambda *_: pytest.fail("scored again"))
    assert main([*command, "--out", str(tmp_path / "2")]) == 0
    first, second = (json.loads((tmp_path / run / "result.json").read_text()) for run in "12")
    assert [row["score"] for row in first["candidates"]] == [row["score"] for row in second["candidates"]]
    revisions = {run["recipe"]["reward_revision"] for run in (first, second)}
    assert revisions == {load_reward("jpeg").revision}
    function = ["--reward", "tests.rewards.test_cache:scored_by"]
    assert main(["--n", "1", "--steps", "2", *function, *keep, "--out", str(tmp_path / "3")]) == 2
    assert "has no revision" in capsys.readouterr().err
