"""An evaluation as a picture: reliability of probabilities, and what best-of-n is worth to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bon_search.compare_plot import COLORS, FORMATS, can_plot
from bon_search.errors import SearchError
from bon_search.files import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from rewards.evaluation.evaluation import Evaluation
    from rewards.evaluation.metrics import Bin

    Draw = Callable[[Axes, Sequence[Evaluation]], None]


def plot(evaluations: Sequence[Evaluation], path: Path) -> tuple[Path, ...]:
    """Write PATH.reliability and PATH.best-of-n as .png and .svg, of whatever the data has; returns the .png files.

    Raises:
        SearchError: matplotlib is missing, or a file cannot be written.
    """
    if not can_plot():
        raise SearchError("There is no plot, since matplotlib is not installed; pip install matplotlib.")
    written = []
    if any(each.calibration or each.labels for each in evaluations):
        written.append(_written(_reliability, evaluations, path.with_name(path.name + ".reliability")))
    if any(each.best_of_n for each in evaluations):
        written.append(_written(_best_of_n, evaluations, path.with_name(path.name + ".best-of-n")))
    return tuple(written)


def _reliability(ax: Axes, evaluations: Sequence[Evaluation]) -> None:
    ax.plot([0, 1], [0, 1], ":", color="grey", linewidth=1)
    for number, each in enumerate(evaluations):
        color = COLORS[number % len(COLORS)]
        for one in each.calibration:
            how = "fitted" if one.fitted else "stated"
            _bins(ax, one.bins, "--" if one.fitted else "-", color, f"{each.reward}, τ {how}: {one.error:.3f}")
        if each.labels:
            one = each.labels.calibration
            _bins(ax, one.bins, "-.", color, f"{each.reward}, labels: {one.error:.3f}")
    ax.set_xlabel("probability that was forecast")
    ax.set_ylabel("how often it came true")
    ax.set_title("Reliability, with expected calibration error", fontsize=9)


def _bins(ax: Axes, bins: Sequence[Bin], style: str, color: str, label: str) -> None:
    largest = max(each.size for each in bins)
    forecasts, observed = [each.forecast for each in bins], [each.observed for each in bins]
    ax.plot(forecasts, observed, style, color=color, label=label, linewidth=1.2)
    ax.scatter(forecasts, observed, [6 + 60 * each.size / largest for each in bins], color=color, alpha=0.6)


def _best_of_n(ax: Axes, evaluations: Sequence[Evaluation]) -> None:
    first = next(each.best_of_n for each in evaluations if each.best_of_n)
    for name, style in (("best", "^:"), ("chance", "v:")):
        ax.plot([one.n for one in first], [getattr(one, name) for one in first], style, color="grey", ms=4, label=name)
    for number, each in enumerate(evaluations):
        sizes, chosen = [one.n for one in each.best_of_n], [one.chosen for one in each.best_of_n]
        ax.plot(sizes, chosen, "o-", color=COLORS[number % len(COLORS)], ms=4, label=each.reward)
    ax.set_xticks([one.n for one in first])
    ax.set_xlabel("n, candidates to choose from")
    ax.set_ylabel("mean rating of the choice")


def _written(draw: Draw, evaluations: Sequence[Evaluation], path: Path) -> Path:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "evaluation", "font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=(5.6, 4.4), layout="constrained")
        ax = figure.subplots()
        draw(ax, evaluations)
        ax.grid(alpha=0.25)
        ax.legend(fontsize=7)
        files = [path.with_name(path.name + ending) for ending in FORMATS]
        for file in files:
            try:
                figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)
            except OSError as error:
                raise SearchError(f"{file} cannot be written ({reason(error)}); choose another --json.") from error
    return files[0]
