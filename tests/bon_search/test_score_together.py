"""score-images by rewards whose scores depend on the company, and by several side by side."""

import csv
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from bon_search.agreement import agreement, spearman
from bon_search.score_cli import main
from rewards import load_reward
from rewards.base import Images, as_images, check_prompts

HERE = "tests.bon_search.test_score_together"
asked: dict[str, int] = {}


class Channel:
    """The mean of one colour; counts the pictures that it is shown, and refuses black ones if it is `Strict`."""

    absolute = True
    revision = "1"
    name, place = "red", 0

    def __call__(self, images: Images, prompts: Sequence[str]) -> torch.Tensor:
        pixels = as_images(images)
        check_prompts(pixels, prompts)
        asked[self.name] = asked.get(self.name, 0) + len(pixels)
        return pixels[:, self.place].mean(dim=(1, 2))


class Green(Channel):
    name, place = "green", 1


class Nameless(Green):
    """One whose versions nobody can tell apart."""

    name, revision = "nameless", ""


class Duel:
    """Compares by blue."""

    name, absolute, revision = "duel", False, "1"

    def heads(self, images: Images, prompts: Sequence[str]) -> torch.Tensor:
        return as_images(images)[:, 2].mean(dim=(1, 2))[:, None]

    def chances(self, outputs: torch.Tensor, others: torch.Tensor | None = None) -> torch.Tensor:
        return torch.sigmoid(outputs - (outputs if others is None else others).T)

    def __call__(self, images: Images, prompts: Sequence[str]) -> torch.Tensor:
        raise AssertionError("asked for scores")


RED, GREEN, NAMELESS, DUEL = (f"{HERE}:{name}" for name in ("Channel", "Green", "Nameless", "Duel"))
COLOURS = {
    "one": [(10, 200, 30), (90, 90, 90), (50, 250, 10), (200, 0, 60), (120, 130, 20)],
    "two": [(30, 10, 0), (20, 60, 100), (70, 50, 40)],
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight pictures of two prompts, of two sizes."""
    asked.clear()
    for prompt, colours in COLOURS.items():
        for k, colour in enumerate(colours):
            path = tmp_path / "pictures" / f"{prompt}-{k}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (8 + k % 2, 8), colour).save(path)
            path.with_suffix(".txt").write_text(prompt)
    return tmp_path / "pictures"


def table(path: Path) -> dict[str, float]:
    with path.open(newline="") as file:
        return {Path(row["image"]).stem: float(row["score"]) for row in csv.DictReader(file)}


def by_hand(spec: str, left_out: Sequence[str] = ()) -> dict[str, float]:
    """What the reward says of all pictures at once."""
    named = {f"{prompt}-{k}": colour for prompt, colours in COLOURS.items() for k, colour in enumerate(colours)}
    named = {name: colour for name, colour in named.items() if name not in left_out}
    images = torch.stack([torch.tensor(colour)[:, None, None].expand(3, 8, 8) / 255 for colour in named.values()])
    scores = load_reward(spec)(images, [name[:3] for name in named])
    return dict(zip(named, scores.tolist(), strict=True))


@pytest.mark.parametrize(
    "spec",
    [
        f"rank({RED} + 2*{GREEN})",
        f"{RED} - {GREEN}",
        f"{RED} > {GREEN}:2",
        f"rank({RED}) > {GREEN}:2",
        f"({RED} + {GREEN}) subject to {GREEN} > 0.1",
    ],
)
def test_scores_are_those_of_all_pictures_at_once(spec: str, pictures: Path, tmp_path: Path) -> None:
    assert main([str(pictures), "--reward", spec, "--batch-size", "3", "--out", str(tmp_path / "s.csv")]) == 0
    assert table(tmp_path / "s.csv") == pytest.approx(by_hand(spec), abs=1e-6)


def test_a_cascade_shows_the_dear_reward_the_best_alone(pictures: Path) -> None:
    assert main([str(pictures), "--reward", f"{RED} > {GREEN}:2"]) == 0
    assert asked == {"red": 8, "green": 2 + 2}


def test_who_is_never_judged_is_said(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pictures), "--prompt", "one", "--reward", f"{RED}:6 > {GREEN}:2"]) == 0
    assert "judges 6 of 8 pictures; the others come last, unseen" in capsys.readouterr().err


def test_a_comparing_reward_may_be_a_part(pictures: Path, tmp_path: Path) -> None:
    spec, out = f"rank({RED} + {DUEL})", tmp_path / "s.csv"
    assert main([str(pictures), "--prompt", "one", "--reward", spec, "--out", str(out)]) == 0
    red, blue = ([colour[k] for colours in COLOURS.values() for colour in colours] for k in (0, 2))
    ranks = [[sorted(values).index(value) / 7 for value in values] for values in (red, blue)]
    scores = [score for _, score in sorted(table(out).items())]
    assert scores == pytest.approx([a + b for a, b in zip(*ranks, strict=True)])
    assert len((tmp_path / "s.parts.jsonl").read_text().splitlines()) == 8
    assert len((tmp_path / "s.outputs.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize("second", [GREEN, NAMELESS])
def test_nothing_is_scored_twice_but_scores_follow_the_company(second: str, pictures: Path, tmp_path: Path) -> None:
    spec, out = f"rank({RED} + {second})", tmp_path / "s.csv"
    (pictures / "two-2.png").rename(tmp_path / "later.png")
    run = [str(pictures), "--reward", spec, "--out", str(out)]
    assert main(run) == 0
    assert table(out) == pytest.approx(by_hand(spec, ["two-2"]), abs=1e-6)
    first = out.read_bytes()
    assert main(run) == 0
    assert out.read_bytes() == first
    assert set(asked.values()) == {7 + 7}  # `by_hand` asked, too
    (tmp_path / "later.png").rename(pictures / "two-2.png")
    assert main(run) == 0
    assert set(asked.values()) == {7 + 7 + 1}
    assert table(out) == pytest.approx(by_hand(spec), abs=1e-6)


def test_a_picture_that_one_reward_refuses_leaves_the_company(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "one-0.png").write_bytes(b"no picture")
    out = tmp_path / "s.csv"
    run = [str(pictures), "--prompt", "a red circle", "--out", str(out)]
    assert main([*run, "--reward", "rank(shapes + pixels:brightness)"]) == 0
    refused = ["one-0", "one-1", "one-3", "two-1"]  # damaged, and those that are not square
    assert sorted(table(out)) == ["one-2", "one-4", "two-0", "two-2"]
    assert max(table(out).values()) <= 2
    said = capsys.readouterr().err
    assert "4 of 8 pictures have no score" in said
    assert all(f"{name}.png" in said for name in refused)


def test_another_combination_of_kept_scores_asks_nobody(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = [str(pictures), "--score-cache", str(tmp_path / "cache"), "--top", "8"]
    assert main([*run, "--reward", f"rank({RED} + {GREEN})"]) == 0
    assert asked == {"red": 8, "green": 8}
    for spec in (f"rank(3*{RED} - {GREEN})", f"{RED} > {GREEN}", f"{RED} subject to {GREEN} < 0.5", GREEN):
        assert main([*run, "--reward", spec]) == 0
    assert asked == {"red": 8, "green": 8}
    assert main([*run, "--reward", NAMELESS]) == 2
    assert "has no revision" in capsys.readouterr().err


def test_several_rewards_stand_side_by_side_and_their_agreement_is_said(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.csv"
    both = ["--reward", RED, "--reward", GREEN, "--prompt", "one", "--out", str(out)]
    assert main([str(pictures), *both, "--top", "2"]) == 0
    printed, said = capsys.readouterr()
    rows = [line.split("\t") for line in printed.splitlines()]
    assert [Path(row[2]).stem for row in rows] == ["one-3", "one-4"]
    assert [float(value) for row in rows for value in row[:2]] == pytest.approx(
        [200 / 255, 0, 120 / 255, 130 / 255], abs=1e-5
    )
    red, green = ([colour[k] for colours in COLOURS.values() for colour in colours] for k in (0, 1))
    expected = spearman(red, green)
    assert "agreement of the rankings (Spearman, 8 pictures)" in said
    assert f"(1) {RED}  +1.00  {expected:+.2f}" in said
    with out.open(newline="") as file:
        assert [row["reward"] for row in csv.DictReader(file)].count(RED) == 8
    assert main([str(pictures), *both, "--json"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["rank"], row["reward"]) for row in listed] == [(k, name) for name in (RED, GREEN) for k in range(1, 9)]
    assert asked == {"red": 8, "green": 8}


def test_agreement_is_the_mean_within_prompts() -> None:
    groups = [
        [[1.0, 2, 3, 4], [1.0, 3, 2, 4], [5.0, 5, 5, 5]],  # 0.8
        [[1.0, 2], [2.0, 1], [0.0, 1]],  # -1, 1
        [[1.0], [2.0], [3.0]],  # alone
    ]
    found = agreement(["a", "b", "c"], groups)
    assert found.spearman[0][1] == found.spearman[1][0] == pytest.approx((0.8 - 1) / 2)
    assert found.spearman[0][2] == pytest.approx(1)  # where the third tells pictures apart
    assert (found.prompts, found.pictures) == (2, 6)
    assert "—" in agreement(["a", "b"], [[[1.0, 1], [1.0, 2]]]).table


def test_a_calibration_is_measured_and_used(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.json"
    assert main([str(pictures), "--reward", RED, "--reward", GREEN, "--write-calibration", str(file)]) == 0
    deviations = json.loads(file.read_text())["deviations"]
    for place, name in enumerate((RED, GREEN)):
        one, two = ([colour[place] / 255 for colour in COLOURS[prompt]] for prompt in ("one", "two"))
        pooled = (4 * statistics.variance(one) + 2 * statistics.variance(two)) / 6
        assert deviations[name] == pytest.approx(pooled**0.5, rel=1e-5)
    capsys.readouterr()
    spec = f"0.7*{RED} + 0.3*{GREEN}"
    assert main([str(pictures), "--reward", spec, "--calibration", str(file), "--min", "-9", "--json"]) == 0
    printed, said = capsys.readouterr()
    scores = {Path(row["image"]).stem: row["score"] for row in map(json.loads, printed.splitlines())}
    assert scores["one-3"] == pytest.approx(0.7 * 200 / 255 / deviations[RED], rel=1e-5)
    assert "sums their ranks" not in said
    assert main([str(pictures), "--reward", spec]) == 0
    assert f"the deviations of {RED}, {GREEN} within a prompt are not all known" in capsys.readouterr().err
    assert main([str(pictures), "--reward", f"rank({RED}) + {GREEN}"]) == 0
    assert f"the deviations of {RED}, {GREEN} within a prompt are not all known" in capsys.readouterr().err
    assert main([str(pictures), "--reward", spec, "--write-calibration", str(file)]) == 2
    assert "combines some" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "other", "sentence"),
    [
        ("c.json", "llava-reward@b", "one name, 'llava-reward', for 'llava-reward@a' and 'llava-reward@b'"),
        ("no/such/c.json", GREEN, "calibration cannot be written"),
    ],
)
def test_what_a_calibration_cannot_hold_is_refused_before_anything_is_scored(
    file: str, other: str, sentence: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = ["--reward", RED, "--reward", "llava-reward@a", "--reward", other]
    assert main([str(pictures), *several, "--write-calibration", str(tmp_path / file)]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("score-images:") == 1
    assert asked == {}


def test_why_a_picture_has_no_score_is_said_also_where_a_calibration_fails(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in pictures.glob("*.png"):
        Image.new("RGB", (8, 8)).save(path)
    (pictures / "one-0.png").write_bytes(b"no picture")
    run = [str(pictures), "--prompt", "one", "--reward", RED, "--write-calibration", str(tmp_path / "c.json")]
    assert main(run) == 2
    said = capsys.readouterr().err
    assert "1 of 8 pictures have no score" in said
    assert f"{pictures / 'one-0.png'} " in said
    assert "scores all pictures of each prompt alike" in said


def test_an_option_goes_to_the_reward_that_has_it(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.csv"
    run = [str(pictures), "--reward", "jpeg", "--reward", RED, "--out", str(out)]
    assert main([*run, "-o", "quality=80"]) == 0
    with out.open(newline="") as file:
        assert {row["reward"] for row in csv.DictReader(file)} == {"jpeg quality=80", RED}
    asked.clear()
    assert main([*run, "-o", "qualty=80"]) == 2
    assert "did you mean 'quality'" in capsys.readouterr().err
    assert asked == {}


@pytest.mark.parametrize("wrong", ["rank(shaps)", f"{RED} + ", "no.such:thing"])
def test_names_are_looked_at_before_anything_is_scored(
    wrong: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(pictures), "--reward", RED, "--reward", wrong]) == 2
    assert capsys.readouterr().err.count("score-images:") == 1
    assert asked == {}
