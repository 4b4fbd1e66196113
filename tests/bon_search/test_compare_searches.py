"""compare-searches as a user meets it: what it prints, writes and refuses."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bon_search.compare_cli import main
from bon_search.compare_prompts import SKILLS, default_prompts, read_prompts
from rewards.shapes import parse, unknown_words
from tests.test_layers import loaded_by

FAST = ["--steps", "2", "--budgets", "1", "2", "--searches", "halving"]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a red circle\n\n a heart and a cross \na red circle\n", encoding="utf-8")
    return path


def test_a_comparison_from_the_command_line(tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*FAST, "--prompts", str(prompts), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "out" / "report.md")
    assert "compare-searches: " in err
    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    cells = data["measurements"]
    assert len(cells) == 2 * 2 * 2
    assert {cell["prompt"] for cell in cells} == {"a red circle", "a heart and a cross"}
    assert [cell["nfe"] for cell in cells if cell["search"] == "best_of_n"] == [2, 4, 2, 4]
    assert all(cell["evaluations_per_nfe"] == 2 for cell in cells)  # guidance
    assert data["settings"]["rewards"]["llava-reward"]
    assert data["settings"]["model_revision"]
    assert data["summaries"][0]["measures"] == ["passes", "held_out", "target"]

    assert main([*command, "--json"]) == 0  # nothing is measured again
    assert json.loads(capsys.readouterr().out)["measurements"] == cells

    assert main([*command, "--steps", "3"]) == 2
    assert "steps 2 then, 3 now" in capsys.readouterr().err


def test_a_comparison_of_kept_scores_asks_no_reward(
    tmp_path: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*FAST, "--prompts", str(prompts), "--rewards", "jpeg", "--score-cache", str(tmp_path / "scores")]
    assert main([*command, "--out", str(tmp_path / "1")]) == 0
    monkeypatch.setattr("rewards.jpeg.JpegReward._size", lambda *_: pytest.fail("scored again"))
    monkeypatch.setattr("rewards.shapes.reward.verify_batch", lambda *_: pytest.fail("judged again"))
    assert main([*command, "--out", str(tmp_path / "2")]) == 0
    first, second = (json.loads((tmp_path / run / "comparison.json").read_text())["measurements"] for run in "12")
    told = [[(cell["target"], cell["held_out"]) for cell in cells] for cells in (first, second)]
    assert told[0] == told[1]


def test_a_plan_costs_nothing(tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FAST, "--dry-run", "--seeds", "3", "--prompts", str(prompts), "--out", str(tmp_path / "out")]) == 0
    assert "24 cells, at most 72 NFE" in capsys.readouterr().out  # 2 searches × 2 prompts × 3 seeds × (2 + 4)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--searches", "halvin"], "did you mean 'halving'"),
        (["--searches", "smc:strenght=3"], "did you mean 'strength'"),
        (["--rewards", "shapes"], "cannot both choose and judge"),
        (["--rewards", "lava-reward"], "did you mean 'llava-reward'"),
        (["--prompts", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--budgets", "4", "--unit", "nfe"], "does not pay for one candidate of 20 steps"),
        (["--reach", "3"], "none of the budgets 4, 8, 16"),
        (["--model", "nowhere/at-all"], "nowhere/at-all"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert told in err
    assert (out, err.count("\n")) == ("", 1)
    assert not list(tmp_path.iterdir())


def test_a_prompt_that_the_judge_cannot_read_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\na photo of an astronaut\n")
    assert main([*FAST, "--prompts", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out")]) == 2
    assert "'astronaut'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("budgets", [["0"], ["-4"], ["four"], []])
def test_a_budget_is_a_positive_number(budgets: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--budgets", *budgets])
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("content", "told"), [(b"\n \n", "holds no prompt"), (b"\xff\xfe\x00", "UTF-8")])
def test_a_file_without_prompts_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=told):
        read_prompts(path)


def test_the_default_prompts_are_sentences_that_the_model_knows() -> None:
    prompts = default_prompts()
    assert len(prompts) == len(set(prompts)) == 24
    assert not any(unknown_words(prompt) for prompt in prompts)
    assert [parse(prompt).skill for prompt in prompts[:3]] == list(SKILLS)  # an interrupted comparison has all three
    assert [parse(prompt).skill for prompt in prompts] == list(SKILLS) * 8


def test_an_interrupt_keeps_what_was_measured(tmp_path: Path, prompts: Path) -> None:
    code = (  # a test that runs in the background has SIGINT ignored, and so would its child
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from bon_search.compare_cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["--steps", "10", "--seeds", "40", "--prompts", str(prompts), "--out", str(tmp_path / "out")]
    journal = tmp_path / "out" / "cells.jsonl"
    deadline = time.monotonic() + 120
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True) as process:
        while time.monotonic() < deadline and not (journal.exists() and journal.read_bytes().count(b"\n") > 2):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "the same command goes on from there" in err
    lines = journal.read_text().splitlines()
    assert all(json.loads(line) for line in lines)


def test_the_help_text_needs_no_heavy_library() -> None:
    assert loaded_by("import bon_search.compare_cli as cli; cli.parser().format_help()") == set()
