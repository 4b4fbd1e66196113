"""An evaluation for people, in Markdown: rewards side by side, and what was left out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bon_search.compare_report import BETTER, NONE, WORSE, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rewards.evaluation.bootstrap import Interval
    from rewards.evaluation.evaluation import Difference, Evaluation
    from rewards.evaluation.summaries import Accuracies

SKIPPED = 20  # pictures that are named
EXPLAINED = (
    "Brackets: 95 % intervals, bootstrap over prompts (BCa). A pair is right when the probability of what people "
    "preferred is above one half, and a tie when it is one half. Where all P prompts agree an interval is a point, "
    "though up to 3 / P of other prompts may differ."
)


def as_markdown(
    title: str,
    evaluations: Sequence[Evaluation],
    found: Sequence[Difference],
    skipped: Mapping[str, str],
    plots: Iterable[str] = (),
) -> str:
    """The whole report.

    Args:
        title: what was evaluated on.
        evaluations: of each reward.
        found: the first against the others.
        skipped: picture → why it is not counted.
        plots: files, relative to the report.
    """
    lines = [f"# {text(title)}", "", EXPLAINED, ""]
    lines += _pairs(evaluations, found) + _categories(evaluations)
    lines += _calibration(evaluations) + _ratings(evaluations) + _labels(evaluations) + _choices(evaluations)
    for plot in plots:
        lines += [f"![{text(plot)}](<{plot}>)", ""]
    if skipped:
        lines += [f"## Left out: {len(skipped)} picture{'s' * (len(skipped) > 1)}", ""]
        lines += [f"* {text(f'{image} {why}')}" for image, why in list(skipped.items())[:SKIPPED]]
        lines += [f"* and {len(skipped) - SKIPPED} more"] * (len(skipped) > SKIPPED) + [""]
    return "\n".join(lines).rstrip() + "\n"


def _pairs(evaluations: Sequence[Evaluation], found: Sequence[Difference]) -> list[str]:
    against = {each.against: each.accuracy_with_ties for each in found}
    rows = [
        [
            each.reward, f"{each.pairs.n}", _percent(each.pairs.accuracy_with_ties),
            _percent(each.pairs.accuracy_without_ties), f"{each.pairs.ties}",
            NONE if each.mean_probability is None else _number(each.mean_probability, ".3f"),
            *([_difference(against.get(each.reward))] if found else []),
        ]
        for each in evaluations
        if each.pairs
    ]  # fmt: skip
    head = ["reward", "pairs", "accuracy with ties, %", "without ties, %", "ties", "mean probability"]
    return _section("Preferences", [*head, *([f"{found[0].reward} less this one, points"] if found else [])], rows)


def _categories(evaluations: Sequence[Evaluation]) -> list[str]:
    names = list(dict.fromkeys(name for each in evaluations for name in each.categories))
    rows = []
    for name in names:
        of_all = [each.categories.get(name) for each in evaluations]
        count = next((f"{one.n}" for one in of_all if one), NONE)
        rows.append([name, count, *(_accuracy(one) for one in of_all)])
    return _section("By category: accuracy with ties, %", ["category", "pairs", *_names(evaluations)], rows)


def _calibration(evaluations: Sequence[Evaluation]) -> list[str]:
    rows = [
        [each.reward, "fitted to these pairs" if one.fitted else "stated", _tau(one.tau), f"{one.error:.3f}"]
        for each in evaluations
        for one in each.calibration
    ]
    head = ["reward", "temperature", "τ", "expected calibration error"]
    return _section("Calibration of sigmoid(margin / τ)", head, rows)


def _ratings(evaluations: Sequence[Evaluation]) -> list[str]:
    if any(each.ratings and each.ratings.n == 1 for each in evaluations):
        return ["## Ratings", "", "Only one picture is rated; correlations need at least two.", ""]
    rows = [
        [
            each.reward, f"{each.ratings.n}", *map(_maybe, (each.ratings.spearman, each.ratings.kendall)),
            _maybe(each.ratings.pearson), _maybe(each.ratings.within), f"{each.ratings.groups}",
        ]
        for each in evaluations
        if each.ratings
    ]  # fmt: skip
    head = ["reward", "pictures", "Spearman", "Kendall τ-b", "Pearson", "Kendall τ-b within a prompt", "prompts"]
    return _section("Ratings", head, rows)


def _labels(evaluations: Sequence[Evaluation]) -> list[str]:
    rows = [
        [
            each.reward, f"{each.labels.n}", f"{each.labels.positive}", _number(each.labels.auc, ".3f"),
            _percent(each.labels.accuracy), _number(each.labels.f1, ".3f"), _number(each.labels.recall, ".3f"),
            f"{each.labels.best_f1:.3f} (from {each.labels.best_threshold:.4g})",
            f"{each.labels.calibration.error:.3f}",
        ]
        for each in evaluations
        if each.labels
    ]  # fmt: skip
    threshold = next((f"{each.labels.threshold:g}" for each in evaluations if each.labels), "")
    head = ["reward", "pictures", "positive", "AUC", "accuracy, %", "F1", "recall", "best F1", "calibration error"]
    return _section(f"Labels, called positive from {threshold} on", head, rows)


def _choices(evaluations: Sequence[Evaluation]) -> list[str]:
    rows = [
        [
            each.reward, f"{one.n}", f"{one.groups}", f"{one.chance:.4g}", f"{one.chosen:.4g}", f"{one.best:.4g}",
            _number(one.regret, ".3g"), _number(one.gain, ".2f"),
        ]
        for each in evaluations
        for one in each.best_of_n
    ]  # fmt: skip
    head = ["reward", "n", "prompts", "chance", "chosen", "best", "regret", "gain (0 chance, 1 best)"]
    return _section("Best-of-n: mean rating of the choice", head, rows)


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A heading and a table; nothing without rows."""
    if not rows:
        return []
    table = ([text(cell) for cell in cells] for cells in (head, *rows))
    first, *others = (f"| {' | '.join(cells)} |" for cells in table)
    return [f"## {title}", "", first, "|---" * len(head) + "|", *others, ""]


def _tau(tau: float | None) -> str:
    """A temperature; its two limits in words."""
    if tau is None or 0 < tau < math.inf:
        return NONE if tau is None else f"{tau:.4g}"
    return "∞: no better than chance" if tau else "0: no pair is wrong"


def _names(evaluations: Sequence[Evaluation]) -> list[str]:
    return [each.reward for each in evaluations]


def _accuracy(one: Accuracies | None) -> str:
    return NONE if one is None else _percent(one.accuracy_with_ties)


def _percent(interval: Interval) -> str:
    return _number(interval, ".1f", 100)


def _difference(interval: Interval | None) -> str:
    if interval is None:
        return NONE
    return _number(interval, "+.1f", 100) + {1: f" {BETTER}", -1: f" {WORSE}"}.get(interval.sign, "")


def _maybe(interval: Interval | None) -> str:
    return NONE if interval is None else _number(interval, ".3f")


def _number(interval: Interval, form: str, scale: float = 1) -> str:
    if math.isnan(interval.value):
        return NONE
    told = f"{interval.value * scale:{form}}"
    if math.isnan(interval.low) or math.isnan(interval.high):
        return told
    return f"{told} [{interval.low * scale:{form}}, {interval.high * scale:{form}}]"
