"""evaluate-reward from the outside: what it measures, writes, takes up again and refuses."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bon_search.evaluate_cli import FORMATS, main
from bon_search.score_cli import main as score_images
from rewards import load_reward
from rewards.evaluation import readers
from rewards.llava.heads import win_probabilities
from rewards.preferences import accuracy, borda
from rewards.shapes.captions import Requirement, Spec
from rewards.shapes.render import render
from rewards.shapes.scenes import random_spec, scene_for

GOLDENS = Path(__file__).parent / "rewards/llava/goldens"
BRIGHT = ["--reward", "pixels:brightness"]


class Counts:
    """Brightness; writes the size of each batch into the file named by COUNTS, and takes a while if told so."""

    name = "counts"
    absolute = True

    def __call__(self, images, prompts):  # noqa: ANN001, ANN204
        with Path(os.environ["COUNTS"]).open("a") as file:
            file.write(f"{len(images)}\n")
        time.sleep(float(os.environ.get("SLOWLY", "0")))
        return load_reward("pixels:brightness")(images, prompts)


class Circle:
    """Prefers one level of grey to the next on a circle of three: 0 to 85, 85 to 170, 170 to 0."""

    name = "circle"
    absolute = False
    tau = 0.5

    def heads(self, images, prompts) -> Tensor:  # noqa: ANN001
        turns = images.mean((1, 2, 3)) * 255 / 85 * 2 * math.pi / 3
        return torch.stack([turns.cos(), turns.sin()], 1)

    def chances(self, outputs: Tensor, others: Tensor | None = None) -> Tensor:
        return win_probabilities(outputs, self.tau, others=others)

    def __call__(self, images, prompts) -> Tensor:  # noqa: ANN001
        return borda(self.chances(self.heads(images, prompts))).float()


def grey(path: Path, level: int) -> str:
    Image.new("RGB", (8, 8), (level, level, level)).save(path)
    return path.name


def pair(chosen: str, rejected: str, prompt: object = "grey", **more: object) -> dict[str, object]:
    return {"chosen_path": chosen, "reject_path": rejected, "prompt": prompt, **more}


def lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """By brightness: 3 right, 1 tie, 1 wrong."""
    for level in (0, 51, 102, 255):
        grey(tmp_path / f"{level}.png", level)
    chosen = [
        ("255.png", "0.png"),
        ("102.png", "51.png"),
        ("51.png", "0.png"),
        ("0.png", "0.png"),
        ("0.png", "102.png"),
    ]
    rows = [pair(*two, f"prompt {k}", category="ab"[k > 2]) for k, two in enumerate(chosen)]
    return lines(tmp_path / "pairs.jsonl", rows)


def evaluated(*options: object) -> dict[str, object]:
    out = Path(str(options[options.index("--json") + 1]))
    assert main([str(option) for option in options]) == 0
    whole: dict[str, object] = json.loads(out.read_text())
    return whole


def test_both_accuracies_of_a_list_known_by_hand(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(*BRIGHT, "--data", pairs, "--json", tmp_path / "out.json")
    assert (found["n"], found["ties"]) == (5, 1)
    assert found["accuracy_with_ties"] == 0.6
    assert found["accuracy_without_ties"] == 0.75
    low, high = found["accuracy_with_ties_interval"]
    assert low < 0.6 < high
    assert {name: each["accuracy_with_ties"] for name, each in found["categories"].items()} == {"a": 1, "b": 0}
    assert found["format"] == "own"
    assert found["mean_probability"] is None  # brightness states no temperature
    report = capsys.readouterr().out
    assert "| pixels:brightness | 5 | 60.0" in report
    assert (tmp_path / "out.md").read_text() == report


def test_several_rewards_side_by_side(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    found = evaluated(*BRIGHT, "--reward", "pixels:sharpness", "--data", pairs, "--json", out)
    assert list(found["rewards"]) == ["pixels:brightness", "pixels:sharpness"]
    assert found["accuracy_with_ties"] == found["rewards"]["pixels:brightness"]["accuracy_with_ties"] == 0.6
    assert found["rewards"]["pixels:sharpness"]["ties"] == 5  # flat pictures
    (difference,) = found["differences"]
    assert difference["accuracy_with_ties"] == pytest.approx(0.6)
    assert difference["accuracy_with_ties_interval"][0] <= 0.6 <= difference["accuracy_with_ties_interval"][1]
    assert "less this one" in capsys.readouterr().out


def test_ratings_labels_and_the_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"path": grey(tmp_path / f"{k}.png", 20 * k), "prompt": "grey", "rating": rating, "label": int(rating > 2)}
        for k, rating in enumerate([2, 1, 4, 3, 5])
    ]
    found = evaluated(*BRIGHT, "--data", lines(tmp_path / "rated.jsonl", rows), "--json", tmp_path / "out.json")
    assert found["n"] == 10  # pairs of five candidates
    assert found["accuracy_with_ties"] == 0.8
    assert found["ratings"]["spearman"] == pytest.approx(0.8)
    assert found["ratings"]["kendall"] == pytest.approx(0.6)
    assert found["labels"]["auc"] == 1
    assert found["best_of_n"][-1]["n"] == 5
    assert found["best_of_n"][-1]["regret"] == 0
    assert "Best-of-n" in capsys.readouterr().out


def test_labels_alone_have_no_pairs(tmp_path: Path) -> None:
    rows = [{"path": grey(tmp_path / f"{k}.png", 50 * k), "prompt": "", "label": k % 2} for k in range(4)]
    data = lines(tmp_path / "labels.jsonl", rows)
    found = evaluated(*BRIGHT, "--data", data, "--threshold", 0.5, "--json", tmp_path / "out.json")
    assert (found["n"], found["accuracy_with_ties"]) == (4, None)
    assert found["labels"]["auc"] == 0.75  # levels 0 1 2 3 of which 1 and 3 are positive
    assert found["labels"]["accuracy"] == 0.75
    assert found["labels"]["recall"] == 0.5


def test_a_reward_that_only_compares_is_asked_for_probabilities(tmp_path: Path) -> None:
    names = [grey(tmp_path / f"{level}.png", level) for level in (0, 85, 170)]
    rows = [pair(names[k], names[(k + 1) % 3], f"prompt {k}") for k in range(3)]
    data, out = lines(tmp_path / "circle.jsonl", rows), tmp_path / "out.json"
    found = evaluated("--reward", "tests.test_evaluate_reward:Circle", "--data", data, "--json", out)
    assert found["accuracy_with_ties"] == 1  # which no scores could reach
    assert found["mean_probability"] == pytest.approx(1 / (1 + math.exp(-math.sin(2 * math.pi / 3) / 0.5)), abs=1e-3)
    assert (tmp_path / "out.outputs.jsonl").is_file()


def test_rounding_needs_a_temperature_and_makes_ties(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [grey(tmp_path / f"{level}.png", level) for level in (200, 201)]
    data, out = lines(tmp_path / "near.jsonl", [pair(names[1], names[0])]), tmp_path / "out.json"
    assert evaluated(*BRIGHT, "--data", data, "--json", out)["accuracy_with_ties"] == 1
    rounded = evaluated(*BRIGHT, "--data", data, "--json", out, "--bfloat16", "--tau", 10)
    assert (rounded["accuracy_with_ties"], rounded["ties"]) == (0, 1)
    assert main([*BRIGHT, "--data", str(data), "--bfloat16"]) == 2
    assert "temperature" in capsys.readouterr().err


def test_pictures_that_cannot_be_read_are_named_and_left_out(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "102.png").write_bytes(b"no picture")
    (tmp_path / "255.png").unlink()
    found = evaluated(*BRIGHT, "--data", pairs, "--json", tmp_path / "out.json")
    assert (found["n"], found["pairs_left_out"]) == (2, 3)
    assert {Path(name).name for name in found["skipped"]} == {"102.png", "255.png"}
    out, err = capsys.readouterr()
    assert "Left out: 2 pictures" in out
    assert err.count("left out: ") == 2


def test_faults_are_refused_unless_they_may_be_skipped(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pairs.open("a") as file:
        file.write('{"chosen_path": "0.png", "prompt": "grey"}\n')
    out = tmp_path / "out.json"
    assert main([*BRIGHT, "--data", str(pairs), "--json", str(out)]) == 2
    assert f"{pairs}:6" in capsys.readouterr().err
    assert not out.exists()
    assert evaluated(*BRIGHT, "--data", pairs, "--json", out, "--skip-bad")["n"] == 5


def test_nothing_is_scored_twice(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTS", str(tmp_path / "counts"))
    options = ("--reward", "tests.test_evaluate_reward:Counts", "--data", pairs, "--json", tmp_path / "out.json")
    first = evaluated(*options)
    counts = (tmp_path / "counts").read_text()
    assert sum(map(int, counts.split())) == 10 - 1  # nine different pictures and prompts
    assert evaluated(*options) == first
    assert (tmp_path / "counts").read_text() == counts


def test_another_command_need_not_score_again(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ["--reward", "jpeg", "--score-cache", str(tmp_path / "scores")]
    assert main(["--data", str(pairs), *kept]) == 0
    monkeypatch.setattr("rewards.jpeg.JpegReward._size", lambda *_: pytest.fail("scored again"))
    assert main(["--data", str(pairs), *kept]) == 0
    listed = tmp_path / "listed.jsonl"
    sides = [json.loads(line) for line in pairs.read_text().splitlines()]
    rows = [{"image": row[side], "prompt": row["prompt"]} for row in sides for side in ("chosen_path", "reject_path")]
    listed.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert score_images([str(listed), *kept]) == 0


def test_a_killed_evaluation_goes_on(tmp_path: Path) -> None:
    names = [grey(tmp_path / f"{level}.png", level) for level in range(0, 240, 20)]
    data = lines(tmp_path / "pairs.jsonl", [pair(b, a) for a, b in pairwise(names)])
    command = [
        sys.executable, "-c", "import sys; from bon_search.evaluate_cli import main; sys.exit(main())",
        "--reward", "tests.test_evaluate_reward:Counts", "--data", str(data), "--json", str(tmp_path / "out.json"),
        "--batch-size", "2",
    ]  # fmt: skip
    environment = {**os.environ, "COUNTS": str(tmp_path / "counts"), "SLOWLY": "0.4"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    kept = tmp_path / "out.scores.jsonl"
    while not kept.exists() or kept.read_text().count("\n") < 4:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    scored = kept.read_text().count("\n")
    assert 4 <= scored < 12
    (tmp_path / "counts").write_text("")
    subprocess.run(command, env={**environment, "SLOWLY": "0"}, check=True, capture_output=True)
    assert sum(map(int, (tmp_path / "counts").read_text().split())) == 12 - scored
    assert json.loads((tmp_path / "out.json").read_text())["accuracy_with_ties"] == 1


@pytest.mark.parametrize(("options", "complaint"), [
    (["--reward", "pixels:brightnes", "--data", "PAIRS"], "brightnes"),
    ([*BRIGHT, "--data", "nothing.json"], "There is no nothing.json"),
    ([*BRIGHT, "--data", "PAIRS", "--format", "smid"], "cannot be used"),
    ([*BRIGHT, "--data", "EMPTY"], "holds no preference"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_sentence(
    options: list[str], complaint: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    named = {"PAIRS": str(pairs), "EMPTY": str(tmp_path / "empty.jsonl")}
    assert main([named.get(option, option) for option in options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("evaluate-reward: ")
    assert err.count("\n") == 1
    assert complaint in err


def test_the_help_names_every_format() -> None:
    assert set(FORMATS) == {"auto", *readers.FORMATS}


def test_the_embedded_reward_tells_a_true_caption_from_a_corrupted_one(tmp_path: Path) -> None:
    rng, rows = Random("evaluate"), []
    for number in range(12):
        spec = random_spec(rng, "counting", "test")
        (noun,) = spec.include
        other = Requirement(noun.shape, noun.color, noun.count + 1 if noun.count < 4 else 3)
        Image.fromarray(np.asarray(render(scene_for(spec, rng), rng))).save(tmp_path / f"{number}.png")
        prompts = [spec.prompt, Spec(spec.skill, (other,), None, spec.prefixed).prompt]
        rows.append(pair(f"{number}.png", f"{number}.png", prompts))
    data, out = lines(tmp_path / "captions.jsonl", rows), tmp_path / "out.json"
    found = evaluated("--reward", "llava-reward", "--reward", "shapes", "--data", data, "--json", out)
    assert found["n"] == 12
    assert found["accuracy_with_ties"] >= 0.75
    assert found["rewards"]["shapes"]["accuracy_with_ties"] == 1
    stated, fitted = found["calibration"]
    assert (stated["tau"], fitted["fitted"]) == (0.1, True)
    scores = [json.loads(line) for line in (tmp_path / "out.scores.jsonl").read_text().splitlines()]
    by = {(row["image"], row["prompt"]): row["score"] for row in scores if row["reward"] == "llava-reward"}
    wins = [by[str(tmp_path / row["chosen_path"]), row["prompt"][0]] for row in rows]
    losses = [by[str(tmp_path / row["chosen_path"]), row["prompt"][1]] for row in rows]
    probabilities = torch.sigmoid((torch.tensor(wins).double() - torch.tensor(losses).double()) / 0.1)
    assert found["accuracy_with_ties"] == accuracy(probabilities).with_ties
    assert found["mean_probability"] == pytest.approx(probabilities.mean().item())


@pytest.mark.parametrize("rounding", [[], ["--bfloat16"]])
def test_a_published_head_of_general_preference(rounding: list[str], tmp_path: Path) -> None:
    checkpoint, base = GOLDENS / "phi3v/gpm2", GOLDENS / "phi3v/base"
    paths = [GOLDENS / f"images/{name}.png" for name in ("cat_a", "gray", "tiny")]
    order = [(0, 1), (1, 2), (2, 0)]
    data = lines(tmp_path / "pairs.jsonl", [pair(str(paths[i]), str(paths[j]), "a red fox") for i, j in order])
    given = ["--checkpoint", checkpoint, "-o", f"base={base}", "-o", "num_crops=1", "--device", "cpu", *rounding]
    found = evaluated("--reward", "llava-reward", *given, "--data", data, "--json", tmp_path / "out.json")
    reward = load_reward("llava-reward", checkpoint=checkpoint, base=base, device="cpu", num_crops=1)
    matrix = reward.preference([Image.open(path) for path in paths], "a red fox", bfloat16=bool(rounding))
    probabilities = torch.stack([matrix[i, j] for i, j in order])
    assert found["accuracy_with_ties"] == accuracy(probabilities).with_ties
    assert found["mean_probability"] == pytest.approx(probabilities.mean().item(), abs=1e-6)


class Warns:
    """Brightness, with a warning on the way."""

    name = "warns"
    absolute = True

    def __call__(self, images, prompts) -> Tensor:  # noqa: ANN001
        for _ in range(2):
            warnings.warn("half of the weights are asleep", UserWarning, stacklevel=1)
        return load_reward("pixels:brightness")(images, prompts)


@pytest.mark.filterwarnings("always")
def test_a_warning_is_one_line_without_its_place(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--reward", f"{__name__}:Warns", "--data", str(pairs)]) == 0
    err = capsys.readouterr().err
    said = [line for line in err.replace("\r", "\n").splitlines() if "asleep" in line]
    assert said == ["evaluate-reward: warning: half of the weights are asleep"]


@pytest.mark.parametrize("missing", ["llava-reward@t1", "llava-reward(checkpoint=t1)"])
def test_a_missing_checkpoint_is_refused_before_anything_is_scored(
    missing: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COUNTS", str(tmp_path / "counts"))
    assert main(["--reward", f"{__name__}:Counts", "--reward", missing, "--data", str(pairs)]) == 2
    assert "There is no folder 't1'" in capsys.readouterr().err
    assert not (tmp_path / "counts").exists()


def test_one_rating_has_no_correlation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = lines(tmp_path / "one.jsonl", [{"path": grey(tmp_path / "a.png", 9), "prompt": "grey", "rating": 3}])
    assert main([*BRIGHT, "--data", str(data)]) == 0
    assert "Only one picture is rated; correlations need at least two." in capsys.readouterr().out
