"""The folder of a comparison: the journal, and what is made of it.

cells.jsonl                     every measurement as it came; a comparison goes on from it
comparison.json                 settings, summaries and all measurements
report.md                       the tables
quality-<reward>.png, .svg      the curves, if matplotlib is installed
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bon_search.compare_plot import can_plot, plot
from bon_search.compare_report import Wording, as_json, as_markdown
from bon_search.compare_summary import Summary, summarise
from bon_search.errors import SearchError
from bon_search.files import reason

if TYPE_CHECKING:
    from bon_search.compare_grid import Grid
    from bon_search.compare_journal import Cell, Key

JOURNAL, JSON, REPORT = "cells.jsonl", "comparison.json", "report.md"


def write_report(
    folder: Path,
    grid: Grid,
    cells: Mapping[Key, Cell],
    settings: Mapping[str, object],
    words: Wording,
    reach: int | None = None,
) -> tuple[Summary, ...]:
    """Write JSON, plots and report of the complete prompts; returns what was found, for each reward.

    Args:
        folder: Exists.
        grid: What was compared.
        cells: Finished cells; those that are not of the grid are left out.
        settings: For the JSON.
        words: What things are called.
        reach: Budget of the best-of-N whose quality is to be reached; the largest when None.

    Raises:
        SearchError: No prompt is complete, or a file cannot be written.
    """
    summaries = tuple(summarise(grid, reward, cells, passing=words.passing, reach=reach) for reward in grid.rewards)
    own = [cells[key] for key, _ in grid.cells() if key in cells]
    _put(folder / JSON, json.dumps(as_json(settings, summaries, own), indent=1, ensure_ascii=False) + "\n")
    plots = {}
    if can_plot():
        plots = {summary.reward: plot(summary, words, folder)[0].name for summary in summaries}
    _put(folder / REPORT, as_markdown(summaries, words, plots))
    return summaries


def _put(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise SearchError(
            f"{path} cannot be written ({reason(error)}); the measurements stay in {path.parent / JOURNAL}: free some "
            "space and give the same command again."
        ) from error
