"""Quality over compute as a picture: one line for each search with a band, over NFE and over seconds."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bon_search.compare_grid import BASELINE
from bon_search.errors import SearchError
from bon_search.files import reason, slug

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bon_search.compare_report import Wording
    from bon_search.compare_summary import Point, Summary

FORMATS = (".png", ".svg")
MARKERS, STYLES = "osD^vP*X", ("-", "--", ":")
# Okabe and Ito's palette, which colour-blind readers can tell apart; best-of-N is black.
COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#F0E442")
COST_LABELS = {"nfe": "NFE per prompt", "seconds": "seconds per prompt"}


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plot(summary: Summary, words: Wording, folder: Path) -> tuple[Path, ...]:
    """Write quality-<reward>.png and .svg: a row for each measure, cost in NFE and in seconds side by side.

    Raises:
        SearchError: matplotlib is missing, or the folder cannot be written.
    """
    if not can_plot():
        raise SearchError("There is no plot, since matplotlib is not installed; pip install matplotlib.")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    measures = summary.measures
    with mpl.rc_context({"svg.hashsalt": summary.reward, "font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=(9.6, 3.2 * len(measures) + 0.5), layout="constrained")
        grid = figure.subplots(len(measures), 2, sharey="row", squeeze=False)
        for axes, measure in zip(grid, measures, strict=True):
            for ax, cost in zip(axes, COST_LABELS, strict=True):
                _curves(ax, summary, measure, cost)
            axes[0].set_xticks(summary.budgets)
            axes[0].set_ylabel(words.measure(measure, summary.reward))
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)), frameon=False)
        paths = tuple(folder / f"quality-{slug(summary.reward)}{ending}" for ending in FORMATS)
        for path in paths:
            _save(figure, path)
    return paths


def _curves(ax: Axes, summary: Summary, measure: str, cost: str) -> None:
    for number, search in enumerate(summary.searches):
        points = summary.curve(search)
        costs = [getattr(point, cost) for point in points]
        color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        look = f"{marker}{STYLES[number // len(COLORS) % len(STYLES)]}"
        front = 3 if search == BASELINE else 2
        ax.plot(costs, _ends(points, measure, "value"), look, color=color, ms=4, label=search, zorder=front)
        low, high = _ends(points, measure, "low"), _ends(points, measure, "high")
        ax.fill_between(costs, low, high, color=color, alpha=0.12, linewidth=0)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.set_xlabel(COST_LABELS[cost])
    ax.grid(alpha=0.25)


def _ends(points: Sequence[Point], measure: str, end: str) -> list[float]:
    return [getattr(point.quality[measure], end) for point in points]


def _save(figure: Figure, path: Path) -> None:
    try:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise SearchError(f"{path} cannot be written ({reason(error)}); choose another folder with --out.") from error
