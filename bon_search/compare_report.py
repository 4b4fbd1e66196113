"""A comparison for people (Markdown) and for programs (JSON, with every single measurement)."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bon_search.compare_grid import BASELINE
from bon_search.compare_journal import SCHEMA, Cell
from bon_search.compare_summary import COSTS, Point, Reach, Summary
from rewards.evaluation.bootstrap import Interval

BETTER, WORSE = "▲", "▼"
NONE = "–"
EXPLAINED = (
    "Every budget is a hard limit in NFE, and candidate k of a prompt starts from the same noise in every search. "
    "Brackets: 95 % intervals over prompts (bootstrap, BCa widened for few prompts). "
    f"Δ: paired difference from {BASELINE}; {BETTER} or {WORSE} where its interval leaves out 0, as one in twenty "
    "does by chance. Where all P prompts agree an interval is a point, though up to 3 / P of other prompts may differ."
)
REACHED = (
    f"Relative to what {BASELINE} spends there, interpolated over the logarithm of cost where a search's mean first "
    f"reaches it. How far {BASELINE} itself is from 1 tells how much of a ratio is chance."
)


@dataclass(frozen=True)
class Wording:
    """What a report calls things.

    Attributes:
        model: Of the text-to-image model.
        judge: Of the reward that took no part in the choice.
        steps: K.
        seeds: Repetitions for each prompt.
        passing: The judge's score from which on a picture passes, if there is such a mark.
    """

    model: str
    judge: str
    steps: int
    seeds: int
    passing: float | None = None

    def measure(self, measure: str, reward: str) -> str:
        """The heading of a measure."""
        if measure == "passes":
            return f"pass rate ({self.judge} ≥ {self.passing:g})"
        return f"{self.judge} (held out)" if measure == "held_out" else f"{reward} (target)"

    def budget(self, nfe: int) -> str:
        """A budget in images' worth where it is a whole number of them."""
        images, rest = divmod(nfe, self.steps)
        return f"{nfe} NFE" if rest else f"{images} image{'s' if images > 1 else ''} ({nfe} NFE)"


def as_json(settings: Mapping[str, object], summaries: Sequence[Summary], cells: Iterable[Cell]) -> dict[str, object]:
    """The whole comparison; numbers that are not finite become null."""
    whole = {
        "schema": SCHEMA,
        "settings": dict(settings),
        "summaries": [asdict(summary) for summary in summaries],
        "measurements": [cell.as_json() for cell in cells],
    }
    plain: dict[str, object] = _finite(whole)
    return plain


def as_markdown(summaries: Sequence[Summary], words: Wording, plots: Mapping[str, str]) -> str:
    """The report: for each reward a table for each budget, what best-of-N's quality costs, and what it is worth.

    Args:
        summaries: One for each reward.
        words: What things are called.
        plots: Reward → file of its plot, relative to the report.
    """
    lines = [
        "# Searches at equal cost",
        "",
        f"{text(words.model)}, {words.steps} steps; {len(summaries[0].prompts)} prompts × {words.seeds} "
        f"seed{'s' if words.seeds > 1 else ''}. {EXPLAINED}",
    ]
    for summary in summaries:
        lines += ["", f"## Chosen by {text(summary.reward)}, judged by {text(words.judge)}", ""]
        if summary.reward in plots:
            lines += [f"![Quality over cost](<{plots[summary.reward]}>)", ""]
        lines += _budgets(summary, words)
        lines += _reached(summary, words)
        lines += ["### What to make of it", "", *(f"* {text(said)}" for said in verdicts(summary, words)), ""]
        lines += _prompts(summary, words)
    return "\n".join(lines).rstrip() + "\n"


def verdicts(summary: Summary, words: Wording) -> list[str]:
    """Sentences: who wins and who loses at the largest budget, and where the target rises but the judge disagrees."""
    said, main = [], summary.measures[0]
    largest = summary.at(summary.budgets[-1])
    for word, sign in (("better than", 1), ("worse than", -1), ("not told apart from", 0)):
        group = [point for point in largest if point.gain and point.gain[main].sign == sign]
        told = ", ".join(f"{point.search} ({_difference(point.gain[main], main)})" for point in group)
        if group:
            said.append(
                f"At {words.budget(summary.budgets[-1])}, by {words.measure(main, summary.reward)}, {word} "
                f"{BASELINE}: {told}."
            )
    return said + _hacking(summary, words)


def _hacking(summary: Summary, words: Wording) -> list[str]:
    """Where the target rises and the judge's score falls, both beyond chance."""
    pairs = [
        (f"{point.search} against {BASELINE} at {words.budget(point.budget)}", point.gain)
        for point in summary.points
        if point.gain
    ]
    least, most = words.budget(summary.budgets[0]), words.budget(summary.budgets[-1])
    pairs += [(f"{search} from {least} to {most}", growth) for search, growth in summary.growth.items()]
    said = [
        f"Reward hacking: {what}, {summary.reward} rises by {_number(gain['target'].value)} while {words.judge} falls "
        f"by {_number(-gain['held_out'].value)}."
        for what, gain in pairs
        if gain["target"].sign > 0 > gain["held_out"].sign
    ]
    return said or [
        f"No reward hacking seen: nowhere does {summary.reward} rise and {words.judge} fall, both beyond chance."
    ]


def _budgets(summary: Summary, words: Wording) -> list[str]:
    main = summary.measures[0]
    head = ["search", "n", "NFE", "seconds", "scored"]
    for measure in summary.measures:
        head += [words.measure(measure, summary.reward), "Δ"]
    head.append(f"Δ {words.measure(main, summary.reward)} in equal seconds")
    lines = []
    for budget in summary.budgets:
        rows = [_row(point, summary.measures) for point in summary.at(budget)]
        lines += [f"### {words.budget(budget)}", "", *_table(head, rows), ""]
    return lines


def _row(point: Point, measures: Sequence[str]) -> list[str]:
    cells = [point.search, f"{point.n}", f"{point.nfe:.4g}", f"{point.seconds:.3g}", f"{point.rewards:.4g}"]
    for measure in measures:
        cells += [_interval(point.quality[measure], measure), _difference(point.gain.get(measure), measure)]
    return [*cells, _difference(point.gain_in_time.get(measures[0]), measures[0])]


def _reached(summary: Summary, words: Wording) -> list[str]:
    by_place = {(reach.search, reach.measure, reach.cost): reach for reach in summary.reaches}
    kinds = [(measure, cost) for measure in summary.measures for cost in COSTS]
    head = [
        "search",
        *(f"{cost.upper() if cost == 'nfe' else cost}: {words.measure(m, summary.reward)}" for m, cost in kinds),
    ]
    rows = [[search, *(_ratio(by_place[search, *kind]) for kind in kinds)] for search in summary.searches]
    return [
        f"### The cost of {BASELINE}'s quality at {words.budget(summary.reached)}",
        "",
        REACHED,
        "",
        *_table(head, rows),
        "",
    ]


def _prompts(summary: Summary, words: Wording) -> list[str]:
    searches = list(summary.by_prompt)
    rows = [
        [prompt, *(_number(summary.by_prompt[search][k]) for search in searches)]
        for k, prompt in enumerate(summary.prompts)
    ]
    return [
        f"### {text(words.judge)} by prompt at {words.budget(summary.budgets[-1])}",
        "",
        *_table(["prompt", *searches], rows),
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; the first cell of a row is anybody's words, the others are numbers."""
    body = [[text(first), *others] for first, *others in rows]
    return [f"| {' | '.join(cells)} |" for cells in ([text(name) for name in head], ["---"] * len(head), *body)]


def text(raw: str) -> str:
    """Anybody's words as Markdown that shows them as they are: on one line, without markup, links or HTML."""
    line = re.sub(r"([\\`*|~#]|(?<=\])\()", r"\\\1", html.escape(" ".join(raw.split()), quote=False))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)


def _ratio(reach: Reach) -> str:
    if math.isinf(reach.ratio.value):
        return f"not reached{_ends(reach.ratio, '.2f')}"
    return f"{'at most ' if reach.at_once else ''}{_number(reach.ratio.value, '.2f')}{_ends(reach.ratio, '.2f')}"


def _interval(interval: Interval, measure: str) -> str:
    if measure == "passes":
        return f"{_number(100 * interval.value, '.1f')} %{_ends(interval, '.0f', 100)}"
    return f"{_number(interval.value)}{_ends(interval)}"


def _difference(interval: Interval | None, measure: str) -> str:
    if interval is None:
        return NONE
    mark = {1: f" {BETTER}", -1: f" {WORSE}", 0: ""}[interval.sign]
    sign = "+" if interval.value > 0 else ""
    return f"{sign}{_interval(interval, measure)}{mark}"


def _ends(interval: Interval, form: str = ".3g", scale: float = 1) -> str:
    if math.isnan(interval.low) or math.isnan(interval.high):
        return ""
    low, high = ("∞" if math.isinf(end) else _number(scale * end, form) for end in (interval.low, interval.high))
    return f" [{low}, {high}]"


def _number(value: float, form: str = ".3g") -> str:
    digits = f"{abs(value):{form}}"
    return f"−{digits}" if value < 0 and float(digits) else digits


def _finite(value: Any) -> Any:  # noqa: ANN401  anything that JSON can hold
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
