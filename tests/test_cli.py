"""generate-best as a user meets it: what it prints, writes and refuses."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from bon_search.cli import main

PROMPT = "a red circle left of a blue square"
EMBEDDED = Path(__file__).parents[1] / "pipelines" / "embedded"
FAST = ["--steps", "4", "--reward", "shapes"]


def result_of(best: str | Path) -> dict:
    return json.loads(Path(best).with_name("result.json").read_text())


def test_the_main_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--n", "3", "--seed", "5", "--out", str(tmp_path / "run"), PROMPT]) == 0
    out, err = capsys.readouterr()
    best = Path(out.strip())
    assert best == tmp_path / "run" / "best.png"
    assert "warning" not in err
    data = result_of(best)
    assert sorted(row["seed"] for row in data["candidates"]) == [5, 6, 7]
    assert data["recipe"]["reward"] == "llava-reward"
    assert data["recipe"]["model_revision"]
    assert data["recipe"]["reward_revision"]
    assert data["cost"]["nfe"] == 3 * data["recipe"]["steps"]
    assert data["cost"]["evaluations_per_nfe"] == 2.0
    scores = [row["score"] for row in data["candidates"]]
    assert scores == sorted(scores, reverse=True)
    winner = best.parent / data["candidates"][0]["file"]
    assert Image.open(best).tobytes() == Image.open(winner).tobytes()
    assert f"Seed: {data['candidates'][0]['seed']}," in Image.open(best).text["parameters"]


def test_a_run_goes_to_a_new_folder_under_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["--n", "1", *FAST, PROMPT]) == 0
    paths = capsys.readouterr().out.split()
    assert paths == [f"runs/000{k}-a-red-circle-left-of-a-blue-square/best.png" for k in (1, 2)]


def test_json_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--n", "2", *FAST, "--json", "--out", str(tmp_path / "run"), PROMPT]) == 0
    assert json.loads(capsys.readouterr().out) == result_of(tmp_path / "run" / "best.png")


def test_several_prompts_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n\ntwo green stars\n", encoding="utf-8")
    assert main(["--prompts", str(tmp_path / "prompts.txt"), "--n", "1", *FAST, "--out", str(tmp_path / "runs")]) == 0
    bests = capsys.readouterr().out.split()
    assert [result_of(best)["recipe"]["prompt"] for best in bests] == ["a red circle", "two green stars"]


def test_a_reward_is_asked_about_all_prompts_before_the_first_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\na tabby cat\n", encoding="utf-8")
    asked = ["--prompts", str(tmp_path / "prompts.txt"), "--n", "1", *FAST]
    assert main([*asked, "--out", str(tmp_path / "runs")]) == 2
    assert "'a tabby cat'" in capsys.readouterr().err
    assert list(tmp_path.rglob("*.png")) == []


def test_a_dry_run_says_the_cost_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["--dry-run", "--n", "16", "--steps", "20", "--reward", "shapes", "--out", str(out), PROMPT]) == 0
    assert "best_of_n with n = 16 and 20 steps, at most 320 NFE, 16 decodes, 16 reward calls" in capsys.readouterr().out
    assert not out.exists()


def test_a_search_a_budget_and_a_score_to_stop_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pruned, timed, until = (tmp_path / name for name in ("pruned", "timed", "until"))
    assert main(["--search", "halving", "--budget-nfe", "50", *FAST, "--out", str(pruned), PROMPT]) == 0
    data = result_of(pruned / "best.png")
    assert data["recipe"]["search"] == "halving"
    assert data["cost"]["nfe"] <= 50
    assert len(data["candidates"]) < data["recipe"]["n"]
    assert main(["--budget-seconds", "1.5", *FAST, "--out", str(timed), PROMPT]) == 0
    data = result_of(timed / "best.png")
    assert data["recipe"]["budget"] == {"seconds": 1.5}
    assert [row["seed"] for row in data["candidates"]]
    assert main(["--until", "0", "--batch-size", "2", *FAST, "--out", str(until), PROMPT]) == 0
    assert len(result_of(until / "best.png")["candidates"]) == 2
    capsys.readouterr()
    assert main(["--list-searches"]) == 0
    assert "best_of_n" in capsys.readouterr().out
    assert main(["--cite"]) == 0
    assert "2501.09732" in capsys.readouterr().out


@pytest.mark.parametrize("printed", [[], ["--json"]], ids=["path", "json"])
def test_a_run_that_finishes_nothing_says_so(
    printed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["--budget-seconds", "1e-9", *printed, *FAST, "--out", str(out), PROMPT]) == 2
    said, err = capsys.readouterr()
    assert said == ""
    assert "The run ended before its first candidate was finished; allow it more cost or time." in err
    assert not out.exists()


def test_the_winner_is_the_same_to_the_pixel_at_any_batch_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {}
    for size in (1, 5, 16):
        out = tmp_path / str(size)
        assert main(["--n", "16", "--steps", "6", "--batch-size", str(size), "--out", str(out), PROMPT]) == 0
        runs[size] = [(row["seed"], row["score"], row["pixels"]) for row in result_of(out / "best.png")["candidates"]]
    assert runs[1] == runs[5] == runs[16]


def test_any_candidate_is_made_again_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again, finer = (tmp_path / name for name in ("first", "again", "finer"))
    settings = ["--steps", "5", "--guidance", "3", "--scheduler", "euler", "--reward", "shapes"]
    assert main(["--n", "4", "--seed", "9", *settings, "--out", str(first), PROMPT]) == 0
    third = result_of(first / "best.png")["candidates"][2]
    source = ["--from", str(first / "result.json"), "--candidate", "3"]
    assert main([*source, "--out", str(again)]) == 0
    assert "bit for bit" in capsys.readouterr().err
    (made,) = result_of(again / "best.png")["candidates"]
    assert (made["seed"], made["pixels"], made["score"]) == (third["seed"], third["pixels"], third["score"])
    assert main([*source, "--steps", "9", "--out", str(finer)]) == 0
    assert "steps 5 to 9" in capsys.readouterr().err
    data = result_of(finer / "best.png")
    assert data["recipe"]["steps"] == 9
    assert data["recipe"]["call"]["guidance_scale"] == 3
    assert data["candidates"][0]["pixels"] != third["pixels"]


COMPOSED = ["--search", "halving then zero_order"]


@pytest.mark.parametrize(
    "search",
    [
        ["--search", "beam", "--n", "4"],
        ["--search", "fk", "--budget-seconds", "3"],
        [*COMPOSED, "-o", "neighbours=2", "--n", "6"],
        [*COMPOSED, "--budget-seconds", "3"],
    ],
    ids=lambda search: " ".join(search[1:]),
)
def test_a_candidate_that_a_search_led_to_is_made_again(
    search: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again, ticks = tmp_path / "first", tmp_path / "again", itertools.count()
    monkeypatch.setattr("bon_search.ledger.time.perf_counter", lambda: next(ticks) * 0.004)  # however busy the machine
    assert main([*search, *FAST, "--steps", "6", "--out", str(first), PROMPT]) == 0
    derived = next(row for row in result_of(first / "best.png")["candidates"] if row["seed"] > 1 << 32)
    source = ["--from", str(first / "result.json"), "--candidate", str(derived["rank"])]
    assert main([*source, "--out", str(again)]) == 0
    assert "bit for bit" in capsys.readouterr().err
    (made,) = result_of(again / "best.png")["candidates"]
    assert (made["seed"], made["pixels"], made["score"]) == (derived["seed"], derived["pixels"], derived["score"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], r"one prompt"),
        (["  "], r"prompt is empty"),
        (["--n", "0", PROMPT], r"--n.*'0'.*at least 1"),
        (["--n", "many", PROMPT], r"'many' is not a whole number"),
        (["--steps", "-3", PROMPT], r"--steps.*'-3'"),
        (["--seed", "-1", PROMPT], r"--seed.*'-1'.*at least 0"),
        (["--guidance", "nan", PROMPT], r"'nan' is not a finite number"),
        (["--candidate", "2", PROMPT], r"--from"),
        (["--from", "nowhere.json"], r"nowhere\.json cannot be read"),
        (["--from", "nowhere.json", PROMPT], r"leave the prompt away"),
        (["--from", "nowhere.json", "--n", "4"], r"leave --n and --seed away"),
        (["caf\udce9"], r"no UTF-8"),
        (["--prompts", "nowhere.txt"], r"nowhere\.txt cannot be read"),
        (["--model", "embeded", PROMPT], r"embeded.*did you mean.*embedded"),
        (["--model", ".", PROMPT], r"model_index\.json"),
        (["--model", "someone/something", PROMPT], r"someone/something"),
        (["--reward", "lava-reward", PROMPT], r"lava-reward.*[Dd]id you mean.*llava-reward"),
        (["--scheduler", "eular", "--reward", "shapes", PROMPT], r"eular.*did you mean.*euler"),
        (["--scheduler", "HeunDiscreteScheduler", "--reward", "shapes", PROMPT], r"Heun.*Euler"),
        (["--height", "62", "--reward", "shapes", PROMPT], r"62"),
        (["--device", "quantum", PROMPT], r"quantum"),
        (["--dtype", "int3", PROMPT], r"int3"),
        (["--offload", "moon", PROMPT], r"moon"),
        (["--out", "/proc/nowhere/run", PROMPT], r"cannot be written.*--out"),
        (["--out", "x" * 300, PROMPT], r"cannot be written.*--out"),
        (["--reward", "json:dumps", PROMPT], r"json:dumps.*cannot be made"),
        (["--reward", "os:path", PROMPT], r"os:path.*module"),
        (["--scheduler", "VQDiffusionScheduler", "--reward", "shapes", PROMPT], r"VQDiffusion.*euler"),
        (["--unheard-of", PROMPT], r"unheard-of.*--help"),
        (["--search", "halvig", PROMPT], r"halvig.*did you mean 'halving'"),
        (["--search", "halving", "-o", "shedule=x.json", PROMPT], r"shedule.*did you mean 'schedule'"),
        (["-o", "until=3", PROMPT], r"best_of_n has no option 'until'"),
        ([*COMPOSED, "-o", "split=2", "--reward", "shapes", PROMPT], r"split = 2 does not divide"),
        (["--search", "halving then halvig", PROMPT], r"halvig.*did you mean 'halving'"),
        (["--search", "halving", "--until", "3", PROMPT], r"leave --search or --until away"),
        (["--budget-nfe", "1", "--reward", "shapes", PROMPT], r"does not pay for"),
        (["--budget-seconds", "0", PROMPT], r"'0' is not above 0"),
        (["--from", "nowhere.json", "--search", "halving"], r"leave --search"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_bad_input_is_one_sentence_with_the_cure(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main([*arguments, "--steps", "2"] if "--steps" not in arguments else arguments)
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert re.search(sentence, err), err
    assert len([line for line in err.split("\n") if line.strip()]) == 1, err
    assert "Traceback" not in err


def test_a_finished_run_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "result.json").write_text("{}")
    assert main(["--out", str(tmp_path), PROMPT]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (tmp_path / "result.json").read_text() == "{}"


def test_a_prompt_that_is_too_long_shows_what_was_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = "a red circle and a blue square and a green star and a purple heart and a yellow cross"
    assert main(["--n", "1", "--steps", "2", "--reward", "pixels:brightness", "--out", str(tmp_path), prompt]) == 0
    assert re.search(r"warning: .*does not see: '.*cross'", capsys.readouterr().err)


def test_words_that_the_embedded_model_never_learnt_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--n", "1", "--steps", "2", "--reward", "pixels:brightness", "--out", str(tmp_path), "a red dragon"]
    assert main(run) == 0
    assert re.search(r"warning: .*dragon.*--model", capsys.readouterr().err)


class BreaksAtTheThird:
    """A reward that gives NaN from the third picture on."""

    name = "breaks-at-the-third"
    absolute = True

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images, prompts):  # noqa: ANN001, ANN204
        import torch

        self.seen += len(images)
        return torch.full((len(images),), float("nan") if self.seen > 2 else 1.0)


def test_a_nan_of_the_reward_costs_no_finished_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reward = "tests.test_cli:BreaksAtTheThird"
    run = ["--n", "6", "--steps", "2", "--batch-size", "2", "--reward", reward, "--out", str(tmp_path), PROMPT]
    assert main(run) == 2
    out, err = capsys.readouterr()
    assert re.search(r"breaks-at-the-third gave nan for the candidate of seed 2", err)
    rows = result_of(out.strip())["candidates"]
    assert [(row["seed"], row["score"]) for row in rows] == [(0, 1.0), (1, 1.0), (2, None), (3, None)]
    assert all((tmp_path / row["file"]).exists() for row in rows)


def test_a_nan_of_the_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    model = tmp_path / "broken"
    shutil.copytree(EMBEDDED, model)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_out.bias"] += float("nan")
    save_file(tensors, weights)
    assert main(["--model", str(model), "--n", "2", *FAST, "--out", str(tmp_path / "run"), PROMPT]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"NaN|not finite", err)
    assert "Traceback" not in err


def test_an_interrupt_keeps_what_is_finished(tmp_path: Path) -> None:
    command = ["--n", "500", "--steps", "5", "--batch-size", "2", "--reward", "shapes", "--out", str(tmp_path / "run")]
    code = "import sys; from bon_search.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command, PROMPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job starts with it ignored
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (tmp_path / "run" / "result.json").exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    rows = result_of(out.strip())["candidates"]
    assert 2 <= len(rows) < 500
    assert all((tmp_path / "run" / row["file"]).exists() for row in rows)
