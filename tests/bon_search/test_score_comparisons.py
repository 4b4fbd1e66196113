"""score-images with a reward that only compares, with options of a reward, and with a table that is in use."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bon_search import tournament
from bon_search.score_cli import main
from bon_search.score_table import COLUMNS, Outputs, Row, Table
from bon_search.tournament import standings
from rewards import load_reward
from rewards.llava.heads import win_probabilities
from rewards.llava.published import PublishedReward

GOLDENS = Path(__file__).parents[1] / "rewards/llava/goldens"
PROMPT = "a red fox"
GPM = ["--checkpoint", str(GOLDENS / "phi3v/gpm2"), "-o", f"base={GOLDENS / 'phi3v/base'}", "-o", "num_crops=1"]
RUN = ["--prompt", PROMPT, "--device", "cpu", *GPM]
NAMES = ["cat_a", "cat_b", "gray", "square", "tiny"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "p").mkdir(exist_ok=True)
        shutil.copy(GOLDENS / f"images/{name}.png", tmp_path / "p")
    return tmp_path / "p"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures went through the model, call by call."""
    counts: list[int] = []
    heads = PublishedReward.heads

    def counted(self: PublishedReward, images: Any, prompts: Any) -> torch.Tensor:
        counts.append(len(prompts))
        return heads(self, images, prompts)

    monkeypatch.setattr(PublishedReward, "heads", counted)
    return counts


def scores_of(path: Path) -> dict[str, float]:
    with path.open(newline="") as file:
        return {Path(row["image"]).stem: float(row["score"]) for row in csv.DictReader(file)}


def expected(names: list[str]) -> dict[str, float]:
    """Borda's count from one matrix of preferences, by hand."""
    reward: Any = load_reward(
        "llava-reward", checkpoint=GOLDENS / "phi3v/gpm2", base=GOLDENS / "phi3v/base", device="cpu", num_crops=1
    )
    images = [Image.open(GOLDENS / f"images/{name}.png") for name in names]
    chances = reward.preference(images, PROMPT).double()
    return dict(zip(names, ((chances.sum(1) - 0.5) / (len(names) - 1)).tolist(), strict=True))


def test_pictures_are_ranked_by_one_matrix(
    pictures: Path, tmp_path: Path, asked: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.csv"
    assert main([str(pictures), *RUN, "--out", str(out), "--top", "2", "--batch-size", "2"]) == 0
    right = expected(NAMES)
    assert scores_of(out) == pytest.approx(right, abs=1e-4)
    best = sorted(right, key=lambda name: -right[name])[:2]
    printed, said = capsys.readouterr()
    assert [Path(line.split("\t")[1]).stem for line in printed.splitlines()] == best
    assert "this reward only compares: a score is the mean probability of being preferred" in said
    assert sum(asked[:-1]) == 5  # the last call is `expected`'s


def test_nothing_is_compared_anew_but_scores_follow_the_company(
    pictures: Path, tmp_path: Path, asked: list[int]
) -> None:
    out, kept = tmp_path / "s.csv", tmp_path / "s.outputs.jsonl"
    last = pictures / "tiny.png"
    last.rename(tmp_path / "later.png")
    run = [str(pictures), *RUN, "--out", str(out)]
    assert main(run) == 0
    first = out.read_bytes()
    assert sum(asked) == 4
    assert main(run) == 0
    assert (sum(asked), out.read_bytes()) == (4, first)
    (tmp_path / "later.png").rename(last)
    assert main(run) == 0
    assert sum(asked) == 5
    assert scores_of(out) == pytest.approx(expected(NAMES), abs=1e-4)
    assert len(kept.read_text().splitlines()) == 5
    fresh = tmp_path / "fresh.csv"
    assert main([str(pictures), *RUN, "--out", str(fresh)]) == 0
    assert fresh.read_bytes() == out.read_bytes()  # resumed or not, in whatever order


def test_what_was_written_before_a_kill_is_not_scored_again(pictures: Path, tmp_path: Path, asked: list[int]) -> None:
    """A run that dies leaves its outputs, the last of them half written; the table is not there yet."""
    out, kept = tmp_path / "s.csv", tmp_path / "s.outputs.jsonl"
    run = [str(pictures), *RUN, "--out", str(out)]
    assert main(run) == 0
    whole = out.read_bytes()
    out.write_bytes(b"")
    lines = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join(lines[:3]) + lines[3][:40])
    assert main(run) == 0
    assert sum(asked) == 5 + 2
    assert out.read_bytes() == whole


def test_other_rewards_and_prompts_keep_their_rows(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.csv"
    bright = [str(pictures), "--prompt", PROMPT, "--reward", "pixels:brightness", "--out", str(out)]
    assert main(bright) == 0
    before = out.read_text().splitlines()
    assert main([str(pictures), *RUN, "--out", str(out)]) == 0
    assert main([str(pictures), *RUN, "--prompt", "boats", "--out", str(out)]) == 0
    lines = out.read_text().splitlines()
    assert lines[: len(before)] == before
    assert len(lines) == 1 + 3 * 5
    assert main([str(pictures / "gray.png"), *RUN, "--out", str(out)]) == 0
    rows = [line for line in out.read_text().splitlines() if f",{PROMPT},llava-reward" in line]
    assert len(rows) == 1  # one ranking for each prompt: the last run's
    assert rows[0].endswith(",0.5")  # alone: preferred to nobody, nobody preferred to it


def test_prompts_have_a_tournament_each(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"image": f"p/{name}.png", "prompt": PROMPT if k < 3 else "boats"} for k, name in enumerate(NAMES)]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert main([str(tmp_path / "list.jsonl"), "--device", "cpu", *GPM, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_prompt = {prompt: [row["score"] for row in rows if row["prompt"] == prompt] for prompt in (PROMPT, "boats")}
    assert [len(scores) for scores in by_prompt.values()] == [3, 2]
    assert all(sum(scores) == pytest.approx(len(scores) / 2) for scores in by_prompt.values())
    assert set(rows[0]) == {"rank", *COLUMNS}


class Circle:
    """Three pictures as rock, paper and scissors: the head gives an angle, and each is preferred a third ahead."""

    name = "circle"
    absolute = False

    def heads(self, images: torch.Tensor, prompts: Any) -> torch.Tensor:
        angle = images[:, 0, 0, 0] * 255 * torch.pi / 1.5
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    def chances(self, outputs: torch.Tensor, others: torch.Tensor | None = None) -> torch.Tensor:
        return win_probabilities(outputs, 0.1, others=others)

    def __call__(self, images: torch.Tensor, prompts: Any) -> torch.Tensor:
        raise AssertionError("asked for scores")


def test_a_cycle_is_reported_by_the_names_of_the_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for level in range(3):
        Image.new("RGB", (8, 8), (level, 0, 0)).save(tmp_path / f"{level}.png")
    assert main([str(tmp_path), "--prompt", "x", "--reward", "tests.bon_search.test_score_comparisons:Circle"]) == 0
    said = capsys.readouterr().err
    cycle = r"the preferences are cyclic \(\S*/0\.png over \S*/1\.png over \S*/2\.png over \S*/0\.png; 1 of 1 triples\)"
    assert re.search(cycle, said), said


def entries(count: int) -> list[Outputs]:
    vectors = torch.randn(count, 2, generator=torch.Generator().manual_seed(0)).tolist()
    return [Outputs(f"{k:05d}.png", "p", "r", "", "", tuple(vector)) for k, vector in enumerate(vectors)]


def test_many_pictures_are_ranked_without_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = standings(entries(60), Circle())
    sizes: list[int] = []

    class Watched(Circle):
        def chances(self, outputs: torch.Tensor, others: torch.Tensor | None = None) -> torch.Tensor:
            sizes.append(len(outputs))
            return super().chances(outputs, others)

    monkeypatch.setattr(tournament, "CYCLES", 59)
    monkeypatch.setattr(tournament, "_AT_ONCE", 600)
    (parts,) = standings(reversed(entries(60)), Watched())
    assert sizes == [10] * 6
    assert [row.image for row in parts.rows] == [row.image for row in whole.rows]
    torch.testing.assert_close(
        torch.tensor([row.score for row in parts.rows]), torch.tensor([row.score for row in whole.rows])
    )
    assert whole.report
    assert parts.report == ""


def test_a_reward_that_keeps_nothing_to_compare_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main([str(tmp_path), "--prompt", "x", "--reward", "tests.bon_search.test_score_comparisons:Opaque"]) == 2
    assert re.search(r"Opaque' only compares the pictures of one batch", capsys.readouterr().err)


class Opaque:
    name = "opaque"
    absolute = False

    def __call__(self, images: torch.Tensor, prompts: Any) -> torch.Tensor:
        return torch.zeros(len(images))


LOCKED = """
import sys, time
from pathlib import Path
from bon_search.score_table import Row, Table
with Table(Path(sys.argv[1]), Row):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held() -> Any:
    """Opens a table in another process, which keeps it until its stdin is closed."""
    processes: list[subprocess.Popen[str]] = []

    def hold(path: Path) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", LOCKED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


def test_two_processes_do_not_write_one_table(
    tmp_path: Path, held: Callable[[Path], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.csv"
    (tmp_path / "p").mkdir()
    Image.new("RGB", (8, 8), "white").save(tmp_path / "p/a.png")
    process = held(out)
    run = [str(tmp_path / "p"), "--prompt", "x", "--reward", "pixels:brightness", "--out", str(out)]
    assert main(run) == 2
    assert re.search(r"s\.csv is being written by another score-images; wait until", capsys.readouterr().err)
    assert out.read_bytes() == b""
    process.communicate("")
    assert main(run) == 0
    process = held(out)
    process.kill()  # a lock does not outlive its process
    process.wait()
    assert main(run) == 0
    assert scores_of(out) == {"a": 1.0}


def test_a_table_that_was_replaced_stays_locked_and_can_grow(tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    rows = [Row(f"{k}.png", "p", "r", "", "0", float(k)) for k in range(4)]
    with Table(out, Row) as table:
        table.add(rows[0])
        table.add(rows[1])
        table.replace([rows[2]], lambda row: row.score == 0)
        table.add(rows[3])
        again = subprocess.run([sys.executable, "-c", LOCKED, str(out)], stdin=subprocess.DEVNULL, capture_output=True)
        assert b"being written by another" in again.stderr
    assert [json.loads(line)["score"] for line in out.read_text().splitlines()] == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["s.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    from bon_search.errors import SearchError

    out = tmp_path / "s.csv"
    row = Row("a.png", "p", "r", "", "0", 1.0)
    with Table(out, Row) as table:
        table.add(row)
        before = out.read_bytes()
        (tmp_path / "s.csv.part").symlink_to("/dev/full")
        with pytest.raises(SearchError, match=r"no space left.*stays as it was"):
            table.replace([replace(row, score=2.0)], lambda row: True)
        assert list(table.rows.values()) == [row]
    assert out.read_bytes() == before


def test_pictures_without_a_prompt_are_scored_where_that_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data set without prompts: an empty column in a list, no text beside a picture, or --prompt "" for all."""
    shutil.copy(GOLDENS / "images/tiny.png", tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("image,prompt\na.png,\n")
    bt = ["--checkpoint", str(GOLDENS / "phi3v/cls"), *GPM[2:], "--device", "cpu"]
    given = {"folder": [str(tmp_path)], "list": [str(tmp_path / "list.csv")], "all": [str(tmp_path), "--prompt", ""]}
    for arguments in given.values():
        assert main([*arguments, *bt]) == 2
        assert "--allow-empty" in capsys.readouterr().err
        assert main([*arguments, *bt, "--allow-empty", "--json"]) == 0
        row = json.loads(capsys.readouterr().out)
        assert row["prompt"] == ""
        assert row["reward"] == f"llava-reward base={GOLDENS / 'phi3v/base'} num_crops=1"
    assert main([str(tmp_path), "--reward", "pixels:brightness", "--allow-empty", "--device", "cpu"]) == 0


def test_options_of_a_reward_make_other_rows(tmp_path: Path) -> None:
    """What changes a score is part of what a row is known by."""
    shutil.copy(GOLDENS / "images/wide.png", tmp_path / "a.png")
    out = tmp_path / "s.csv"
    run = [str(tmp_path / "a.png"), "--prompt", PROMPT, "--device", "cpu", "--out", str(out)]
    bt = ["--checkpoint", str(GOLDENS / "phi3v/bt_ca"), *GPM[2:4]]
    for crops in ("1", "4"):
        assert main([*run, *bt, "-o", f"num_crops={crops}"]) == 0
    with out.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert float(first["score"]) != float(second["score"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-o", "num_crops"], r"'num_crops' sets nothing: write an option and its value"),
        (["-o", "crops=4"], r"no option 'crops': did you mean 'num_crops'"),
        (["-o", "num_crops=0"], r"num_crops 0"),
        (["-o", "skipca=paper"], r"skipca 'paper'; expected 'masked' or 'official'"),
    ],
)
def test_options_that_are_refused(
    options: list[str], sentence: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main([str(pictures), *RUN[:-2], *options])
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    assert status == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_a_checkpoint_that_training_did_not_move_is_scored_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(GOLDENS / "images/tiny.png", tmp_path / "a.png")
    folder = tmp_path / "bt"
    shutil.copytree(GOLDENS / "phi3v/bt_ca", folder)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({**state, "ca_layernorm.weight": torch.ones(64)}, folder / "pytorch_model.bin")
    run = [str(tmp_path / "a.png"), "--prompt", "x", "--device", "cpu", "--checkpoint", str(folder), *GPM[2:]]
    assert main(run) == 0
    said = capsys.readouterr().err
    assert re.search(
        r"(?m)^score-images: warning: \S+/bt: training did not move the SkipCA norm of this checkpoint", said
    )
    assert "UserWarning" not in said


def test_inspect_takes_every_name_that_a_reward_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for perspective in ("alignment", "safety"):
        shutil.copytree(GOLDENS / "phi3v/bt_ca", tmp_path / f"{perspective}/phi")
    assert main(["--inspect", "llava-reward:safety", "--checkpoint", str(tmp_path)]) == 0
    assert re.search(r"(?m)^checkpoint: +\S+/safety/phi$", capsys.readouterr().out)
    assert main(["--inspect", "llava-reward"]) == 0
    assert re.search(r"(?m)^layout: +embedded$", capsys.readouterr().out)
    state = torch.load(tmp_path / "safety/phi/pytorch_model.bin", weights_only=True)
    torch.save({**state, "ca_layernorm.weight": torch.ones(64)}, tmp_path / "safety/phi/pytorch_model.bin")
    assert main(["--inspect", str(tmp_path / "safety")]) == 0
    assert re.search(r"(?m)^initial values: +SkipCA norm$", capsys.readouterr().out)
    broken = tmp_path / "alignment/phi/lora/adapter_model.bin"
    broken.write_bytes(broken.read_bytes()[:500])
    for name, sentence in {
        str(tmp_path): r"There are 2 checkpoints in '.*': alignment/phi, safety/phi; add a word",
        str(tmp_path / "alignment"): r"adapter_model\.bin is truncated or damaged \(.*\); copy it again\.",
        "llava-reward:beauty": r"'beauty' matches no checkpoint",
    }.items():
        assert main(["--inspect", name, "--checkpoint", str(tmp_path)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert re.search(sentence, err), err
        assert len(err.strip().splitlines()) == 1
