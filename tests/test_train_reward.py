"""train-reward as it is typed."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from bon_search.train_cli import main
from rewards.training.records import write_records
from tests.rewards.training.world import misaligned, pictures

QUICK = ["--base", "embedded", "--cpu", "--steps", "2", "--batch-size", "2", "--lora-rank", "2"]


def data_of(folder: Path) -> Path:
    path = folder / "data.jsonl"
    write_records(path, misaligned(folder / "pictures", 3, 0))
    return path


def test_from_a_file_to_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = data_of(tmp_path), tmp_path / "out"
    write_records(tmp_path / "test.jsonl", misaligned(tmp_path / "test", 2, 9))
    asked = ["--data", str(data), "--out", str(out), "--test", str(tmp_path / "test.jsonl"), *QUICK]
    assert main(asked) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    facts = json.loads((out / "training.json").read_text())
    assert facts["test"]["n"] == 2
    assert f"{100 * facts['test']['accuracy']:.1f} % of the 2 test records are told right." in said.err
    assert facts["base"] == "embedded"
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert main([*asked, "--resume"]) == 0
    assert "finished already" in capsys.readouterr().err
    assert main([*asked, "--resume", "--steps", "5"]) == 2
    assert "has steps 2, this one 5; choose another folder" in capsys.readouterr().err
    assert main(asked) == 2
    assert "finished training" in capsys.readouterr().err


def test_faults_are_listed_and_skipped_only_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = data_of(tmp_path), tmp_path / "out"
    with data.open("a") as file:
        file.write('{"path": "none.png", "label": 1, "prompt": "x"}\n{"path": "none.png", "label": 3, "prompt": "x"}\n')
    assert main(["--data", str(data), "--check-data"]) == 2
    said = capsys.readouterr()
    assert said.out == "3 good records, 2 faults\n"
    assert f"{data}:4: there is no picture {tmp_path / 'none.png'}" in said.err
    assert f"{data}:5: label is 3; expected 0 (bad) to 1 (good)" in said.err
    assert main(["--data", str(data), "--out", str(out), *QUICK]) == 2
    assert "--skip-bad" in capsys.readouterr().err
    assert not out.exists()
    assert main(["--data", str(data), "--out", str(out), "--skip-bad", *QUICK]) == 0
    assert json.loads((out / "training.json").read_text())["records"] == 3


def test_checking_looks_at_data_and_test_and_says_a_fault_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, test = data_of(tmp_path), tmp_path / "test.jsonl"
    pair = misaligned(tmp_path / "more", 2, 4)[1]
    row = {"chosen_path": str(pair.chosen.image), "reject_path": str(pair.rejected.image), "prompt": " "}
    with data.open("a") as file:
        file.write(json.dumps(row) + "\n")
    test.write_text('{"path": "none.png", "label": 1, "prompt": "x"}\n')
    assert main(["--data", str(data), "--test", str(test), "--check-data"]) == 2
    said = capsys.readouterr()
    assert said.out == "3 good records, 2 faults\n"
    assert said.err.count(f"{data}:4: the prompt ' ' is empty") == 1
    assert f"{test}:1: there is no picture" in said.err


def test_checking_lists_every_fault_and_training_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"path": "none.png", "label": 1, "prompt": "x"}\n' * 30)
    assert main(["--data", str(data), "--check-data"]) == 2
    said = capsys.readouterr().err
    assert [f"{data}:{line}: " in said for line in (1, 30)] == [True, True]
    assert main(["--data", str(data), "--out", str(tmp_path / "out"), *QUICK]) == 2
    said = capsys.readouterr().err
    assert f"{data}:20: " in said
    assert f"{data}:21: " not in said
    assert "and 10 more, which --check-data lists" in said


def test_pairs_and_labels_of_several_files_make_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs, labels, more = data_of(tmp_path), tmp_path / "labels.csv", tmp_path / "more.jsonl"
    sides = pictures(tmp_path / "labelled", 4, 5)
    rows = [f'{side.image},{number % 2},"{side.prompt}"' for number, side in enumerate(sides)]
    labels.write_text("path,label,prompt\n" + "\n".join(rows) + "\n")
    write_records(more, misaligned(tmp_path / "others", 2, 7))
    asked = ["--data", str(pairs), str(labels), "--data", str(more)]
    assert main([*asked, "--check-data"]) == 0
    assert capsys.readouterr().out == "9 good records, 0 faults\n"
    for loss in ("bt", "cls"):
        out = tmp_path / loss
        assert (
            main([*asked, "--out", str(out), *QUICK, "--batch-size", "9", "--loss", loss, "--label-weight", "0.5"]) == 0
        )
        assert json.loads((out / "training.json").read_text())["records"] == 9
    assert main([*asked, "--out", str(tmp_path / "gpm"), *QUICK, "--loss", "gpm"]) == 2
    assert f"{labels}:2 labels one picture, but a general preference only compares" in capsys.readouterr().err


def test_a_test_that_shares_pictures_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_of(tmp_path)
    (tmp_path / "test.jsonl").write_text(data.read_text().splitlines()[1] + "\n")
    assert main(["--data", str(data), "--test", str(tmp_path / "test.jsonl"), "--check-data"]) == 2
    assert f"is in the test data too ({tmp_path / 'test.jsonl'}:1)" in capsys.readouterr().err


def test_mismatched_prompts_are_written_as_pairs(tmp_path: Path) -> None:
    data, out = data_of(tmp_path), tmp_path / "pairs.jsonl"
    assert main(["--data", str(data), "--mismatched", "1", "--write-pairs", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 6
    assert all(isinstance(row["prompt"], list) for row in rows[3:])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--loss", "gpm", "--dim", "3"], "expected an even number"),
        (["--data", "none.parquet"], "expected a .json, .jsonl or .csv file"),
        (["--base", "nowhere"], "There is no folder 'nowhere'"),
        (["--tracker", "guestbook"], "Got tracker 'guestbook'; expected none, aim, "),
        (["--tracker", "dvclive"], "The tracker dvclive is not installed"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[str], said: str
) -> None:
    assert main(["--data", str(data_of(tmp_path)), "--out", str(tmp_path / "out"), *QUICK, *asked]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("train-reward: ")
    assert said in line


def test_base_and_out_are_needed_to_train(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--data", str(data_of(tmp_path)), "--out", str(tmp_path / "out")])
    assert end.value.code == 2


@pytest.mark.filterwarnings("default")  # of TensorBoard's own
@pytest.mark.parametrize("tracker", [None, "none"])
def test_tensorboard_tracks_where_it_is_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tracker: str | None
) -> None:
    out, there = tmp_path / "out", find_spec("tensorboard") is not None
    asked = ["--data", str(data_of(tmp_path)), "--out", str(out), *QUICK]
    assert main([*asked, *(["--tracker", tracker] if tracker else [])]) == 0
    assert bool(list(out.rglob("events.out.tfevents*"))) == (tracker is None and there)
    assert ("pip install tensorboard" in capsys.readouterr().err) == (tracker is None and not there)
