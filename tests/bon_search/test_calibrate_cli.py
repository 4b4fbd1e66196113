"""calibrate-search: what it writes is what the searches read; what cannot be is one sentence."""

import re
from pathlib import Path

import pytest

from bon_search.calibrate_cli import FORECAST, SCHEDULE, main
from bon_search.forecast import Forecast
from bon_search.pruning import Schedule


def test_it_writes_a_schedule_and_a_forecast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colours, forms = ("red", "green", "blue", "yellow"), ("circle", "square", "star", "heart")
    lines = [f"a {colour} {form}" for colour in colours for form in forms]
    (tmp_path / "prompts.txt").write_text("\n".join(lines))
    small = ["--n", "8", "--target", "2", "--steps", "4", "--reward", "pixels:brightness"]
    out = tmp_path / "calibration"
    assert main(["--prompts", str(tmp_path / "prompts.txt"), *small, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "of best-of-2" in said or "does not pay" in said
    assert "pandora reaches" in said
    assert all(0 < cut.keep < 1 for cut in Schedule.load(out / SCHEDULE).cuts)
    assert Forecast.load(out / FORECAST).places(4) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--n", "8"], "needs 64 candidates"),
        (["--prompts", "nowhere.txt"], r"nowhere\.txt cannot be read"),
        (["--model", "someone/something"], "give --prompts FILE"),
        (["--out", "/proc/nowhere"], "cannot be made"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(sentence, line)
