"""What is said of measurements that are known: winners, losers, hacking, and prompts as they are."""

import json
import math
import re
from pathlib import Path

import pytest
from PIL import Image

from bon_search import compare_files, compare_plot
from bon_search.compare import Cell, Grid, Key, make_grid
from bon_search.compare_files import write_report
from bon_search.compare_report import Wording, as_json, as_markdown, text, verdicts
from bon_search.compare_summary import Summary, summarise
from bon_search.errors import SearchError
from tests.bon_search.compare_toy import PROMPTS, Darkness, compared, grid

STEPS, BUDGETS = 10, (40, 160)
WORDS = Wording("toy", "judge", STEPS, 1, passing=0.5)
NASTY = 'a | b <script>alert(1)</script> `c` *d* [e](http://x) _f_ \\ "é"'


def made(prompts: int = 20, searches: tuple[str, ...] = ("halving", "smc")) -> Grid:
    names = [NASTY, *(f"prompt {k}" for k in range(1, prompts))]
    return make_grid(searches, ["target"], names, BUDGETS, steps=STEPS)


def cells(of: Grid, **curves: tuple[tuple[float, float, float], ...]) -> dict[Key, Cell]:
    """Cells of which target, held-out score and seconds are given for each budget, with a difficulty of each prompt."""
    found = {}
    for key, contender in of.cells():
        target, held_out, seconds = curves[contender.label][of.budgets.index(key.budget)]
        k = of.prompts.index(key.prompt)
        hard, own = 0.1 * math.sin(k), 0.01 * math.cos(7 * k + len(key.search))
        numbers = {"n": 1, "finished": 1, "winner": 5, "nfe": key.budget, "rewards": 3, "decodes": 3}
        found[key] = Cell(
            key=key,
            target=target + hard + own,
            held_out=held_out + hard + own,
            seconds=seconds,
            evaluations_per_nfe=2.0,
            **numbers,
        )
    return found


CURVES = {
    "best_of_n": ((0.2, 0.3, 1.0), (0.6, 0.7, 4.0)),
    "halving": ((0.4, 0.5, 1.0), (0.8, 0.9, 4.0)),  # reaches best-of-N's quality at half of the way
    "smc": ((0.3, 0.2, 2.0), (0.7, 0.1, 8.0)),  # deceives its target
}


@pytest.fixture
def summary() -> Summary:
    return summarise(made(), "target", cells(made(), **CURVES), passing=0.5)


def test_gains_are_paired_with_best_of_n(summary: Summary) -> None:
    baseline, halving, smc = summary.at(160)
    assert [point.search for point in (baseline, halving, smc)] == ["best_of_n", "halving", "smc"]
    assert baseline.gain == {}
    assert halving.gain["held_out"].value == pytest.approx(0.2, abs=0.005)
    assert halving.gain["held_out"].high - halving.gain["held_out"].low < 0.03  # the prompts' own spread is gone
    assert halving.quality["held_out"].high - halving.quality["held_out"].low > 0.05
    assert (halving.gain["held_out"].sign, smc.gain["held_out"].sign, smc.gain["target"].sign) == (1, -1, 1)


def test_pass_rates_come_first(summary: Summary) -> None:
    assert summary.measures == ("passes", "held_out", "target")
    assert [point.quality["passes"].value for point in summary.at(160)] == pytest.approx([1, 1, 0])


def test_the_gain_in_equal_seconds_is_interpolated(summary: Summary) -> None:
    fast, slow = summary.curve("halving"), summary.curve("smc")
    assert fast[1].gain_in_time["target"].value == pytest.approx(0.2, abs=0.005)
    assert slow[0].gain_in_time["target"].value == pytest.approx(0.3 - 0.4, abs=0.005)  # best-of-N has 0.4 after 2 s
    assert slow[1].gain_in_time["target"].value == pytest.approx(0.5 - 0.6, abs=0.005)  # it has itself 0.5 after 4 s


def test_the_cost_of_best_of_ns_quality(summary: Summary) -> None:
    ratio = {(r.search, r.measure, r.cost): r for r in summary.reaches}
    assert ratio["best_of_n", "target", "nfe"].ratio.value == pytest.approx(1.0)
    assert ratio["halving", "target", "nfe"].ratio.value == pytest.approx(0.5, abs=0.02)  # 80 of 160
    assert ratio["halving", "target", "seconds"].ratio.value == pytest.approx(0.5, abs=0.02)
    assert ratio["halving", "passes", "nfe"].at_once is False
    assert math.isinf(ratio["smc", "held_out", "nfe"].ratio.value)
    assert ratio["smc", "target", "nfe"].ratio.value == pytest.approx(4 ** (0.75 - 1), abs=0.02)
    assert ratio["smc", "target", "seconds"].ratio.value == pytest.approx(2 * 4 ** (0.75 - 1), abs=0.04)


def test_the_budget_to_reach_can_be_chosen() -> None:
    found = summarise(made(), "target", cells(made(), **CURVES), reach=40)
    ratio = {(r.search, r.measure, r.cost): r for r in found.reaches}
    assert ratio["halving", "held_out", "nfe"].at_once
    assert ratio["halving", "held_out", "nfe"].ratio.value == 1.0
    with pytest.raises(SearchError, match="none of"):
        summarise(made(), "target", cells(made(), **CURVES), reach=41)


def test_winners_losers_and_hacking_are_named(summary: Summary) -> None:
    told = verdicts(summary, WORDS)
    assert any("worse than best_of_n: smc (−100.0 %" in sentence for sentence in told)
    hacking = [sentence for sentence in told if sentence.startswith("Reward hacking")]
    assert any("smc against best_of_n at 16 images (160 NFE)" in sentence for sentence in hacking)
    assert any("smc from 4 images (40 NFE) to 16 images (160 NFE)" in sentence for sentence in hacking)
    assert not any("halving" in sentence for sentence in hacking)


def test_without_hacking_the_report_says_so() -> None:
    plain = made(searches=("halving",))
    found = summarise(plain, "target", cells(plain, **CURVES))
    assert verdicts(found, Wording("toy", "judge", STEPS, 1))[-1].startswith("No reward hacking seen")


def test_the_table_has_best_of_n_first_and_every_loser(summary: Summary) -> None:
    report = as_markdown([summary], WORDS, {})
    tables = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", report, flags=re.M)]
    assert len(tables) == len(BUDGETS) + 2
    for head, rule, *rows in tables[:3]:
        assert [row.split(" | ")[0] for row in rows] == ["| best_of_n", "| halving", "| smc"]
        assert {line.count(" | ") for line in (head, rule, *rows)} == {head.count(" | ")}
    assert "−0.6" in tables[1][-1]
    assert "▼" in tables[1][-1]


def test_prompts_are_shown_as_they_are_and_do_nothing(summary: Summary) -> None:
    report = as_markdown([summary], WORDS, {})
    row = next(line for line in report.splitlines() if "alert" in line)
    assert "<script>" not in report
    assert row.startswith(
        '| a \\| b &lt;script&gt;alert(1)&lt;/script&gt; \\`c\\` \\*d\\* [e]\\(http://x) \\_f\\_ \\\\ "é" | '
    )
    assert text("two\nlines and best_of_n") == "two lines and best_of_n"


def test_one_prompt_has_no_interval() -> None:
    single = made(1, ("halving",))
    found = summarise(single, "target", cells(single, **CURVES))
    assert math.isnan(found.at(160)[1].gain["target"].low)
    assert "nan" not in as_markdown([found], Wording("toy", "judge", STEPS, 1), {})


def test_prompts_that_lack_a_cell_are_left_out() -> None:
    known = cells(made(), **CURVES)
    del known[Key("smc", "target", NASTY, 0, 160)]
    found = summarise(made(), "target", known)
    assert len(found.prompts) == 19
    assert NASTY not in found.prompts
    with pytest.raises(SearchError, match="No prompt is complete"):
        summarise(made(), "target", {})


def test_seeds_of_a_prompt_are_averaged(tmp_path: Path) -> None:
    wanted = grid(seeds=2, prompts=PROMPTS[:3], images=(2,))
    journal, _ = compared(tmp_path, wanted)
    (point,) = summarise(wanted, "toy-brightness", journal.cells).points
    assert point.quality["target"].value == pytest.approx(sum(c.target for c in journal.cells.values()) / 6)


def test_json_holds_every_measurement_and_no_infinity(summary: Summary) -> None:
    known = cells(made(), **CURVES)
    read = json.loads(json.dumps(as_json({"model": "toy"}, [summary], known.values()), allow_nan=False))
    assert [Cell.from_json(record) for record in read["measurements"]] == list(known.values())
    assert read["settings"] == {"model": "toy"}
    never = [r for r in read["summaries"][0]["reaches"] if (r["search"], r["measure"]) == ("smc", "held_out")]
    assert [r["ratio"]["value"] for r in never] == [None, None]


def test_the_folder_of_a_comparison(tmp_path: Path) -> None:
    wanted = grid("halving")
    journal, _ = compared(tmp_path, wanted)
    words = Wording("toy", Darkness.name, wanted.steps, 1)
    (found,) = write_report(tmp_path, wanted, journal.cells, {}, words)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "cells.jsonl",
        "comparison.json",
        "report.md",
        "quality-toy-brightness.png",
        "quality-toy-brightness.svg",
    }
    with Image.open(tmp_path / "quality-toy-brightness.png") as picture:
        assert picture.size[0] > 1000
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    drawing = (tmp_path / "quality-toy-brightness.svg").read_text()
    assert drawing.count("<svg") == 1
    assert "](<quality-toy-brightness.png>)" in (tmp_path / "report.md").read_text()
    assert any(sentence.startswith("Reward hacking: best_of_n from") for sentence in verdicts(found, words))


def test_without_matplotlib_there_is_a_report_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_plot, "find_spec", lambda name: None)
    wanted = grid(prompts=PROMPTS[:2])
    journal, _ = compared(tmp_path, wanted)
    write_report(tmp_path, wanted, journal.cells, {}, Wording("toy", "judge", wanted.steps, 1))
    assert not list(tmp_path.glob("quality-*"))
    assert "![" not in (tmp_path / "report.md").read_text()
    with pytest.raises(SearchError, match="pip install matplotlib"):
        compare_plot.plot(summarise(wanted, "toy-brightness", journal.cells), WORDS, tmp_path)


def test_a_report_that_cannot_be_written_keeps_the_measurements(tmp_path: Path) -> None:
    wanted = grid(prompts=PROMPTS[:2])
    journal, _ = compared(tmp_path, wanted)
    (tmp_path / compare_files.REPORT).mkdir()
    with pytest.raises(SearchError, match="the measurements stay"):
        write_report(tmp_path, wanted, journal.cells, {}, Wording("toy", "judge", wanted.steps, 1))
