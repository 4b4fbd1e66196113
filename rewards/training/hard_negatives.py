"""Hard negatives: a picture with another picture's prompt, and candidates of one prompt that a judge tells apart.

The paper adds some 70,000 mismatched prompts to its alignment data (arXiv:2507.21391); how it chose them is not
published. Here the prompt of another record that shares the most words with a record's own one, of a few drawn ones, is
the rejected side's.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from rewards.base import Reward, Scores
from rewards.errors import RewardError
from rewards.training.checks import digests_of, open_picture
from rewards.training.records import Pair, Record, Side, Single

RESULT = "result.json"  # of a generate-best run
_DRAWN = 16  # prompts among which the nearest is taken


class Candidate(NamedTuple):
    """One picture of a run, and whether or how much it is liked."""

    image: Path
    liking: float


def mismatched(records: Sequence[Record], count: int, *, seed: int, judge: Reward | None = None) -> list[Pair]:
    """Pairs of a good picture with its own prompt, chosen, and with another record's prompt, rejected.

    Args:
        records: good pictures are chosen sides, and those with a label above one half.
        count: pairs that are wanted; fewer come back where the data has not as many.
        seed: of the draws.
        judge: leaves pairs out for which it does not score the own prompt higher, since another prompt may be as true.

    Raises:
        RewardError: all prompts are the same.
    """
    good = [(side, record.where) for record in records for side in _good(record)]
    prompts = sorted({side.prompt for side, _ in good if side.prompt.strip()})
    if len(prompts) < 2:
        raise RewardError(f"Got {len(prompts)} different prompts; expected at least two to mismatch them.")
    draws = Random(f"mismatched-{seed}")
    draws.shuffle(good)
    pairs: list[Pair] = []
    for side, where in good:
        if len(pairs) == count:
            break
        other = Side(side.image, _nearest(side.prompt, prompts, draws))
        if other.prompt != side.prompt and (judge is None or _prefers(judge, side, other)):
            pairs.append(Pair(side, other, where=f"mismatched prompt for {where}"))
    return pairs


def pairs_of_runs(
    folder: Path, *, judge: Reward | None = None, picks: Path | None = None, gap: float = 0.0, most: int = 4
) -> list[Pair]:
    """Pairs of candidates from the `generate-best` runs in `folder`, by a judge's scores or by a person's picks.

    Args:
        folder: a run, or a folder with runs anywhere below.
        judge: a reward, for example the exact verifier "shapes"; candidates that it scores alike make no pair.
        picks: .csv or .jsonl with the fields run (folder, relative to `folder`) and pick (a candidate's file or seed);
            a picked candidate is preferred to all that were not, in runs that are in the file.
        gap: difference of scores that a pair must exceed.
        most: pairs from one run, those of the largest differences.

    Raises:
        RewardError: not exactly one of judge and picks is given, there are no runs, or a file is damaged.
    """
    if (judge is None) == (picks is None):
        raise RewardError("Candidates of runs need either a judge or a file of picks; give one of them.")
    runs = sorted(folder.rglob(RESULT))
    if not runs:
        raise RewardError(
            f"There is no {RESULT} below {folder}; expected the folder of one generate-best run or of many."
        )
    picked = None if picks is None else _read_picks(picks)
    pairs: list[Pair] = []
    for run in runs:
        prompt, candidates = _read_run(run)
        if judge is not None:
            liked = _judged(judge, [path for path, _ in candidates], prompt)
        else:
            liked = _liked(candidates, (picked or {}).get(str(run.parent.relative_to(folder)), ()), run)
        pairs += _pairs(liked, prompt, run, gap=gap, most=most)
    return _without_repeats(pairs)


def _without_repeats(pairs: Sequence[Pair]) -> list[Pair]:
    """The first of pairs with the same pixels and prompt: runs of nearby seeds share candidates."""
    digests = digests_of(pairs)
    first: dict[tuple[object, ...], Pair] = {}
    for pair in pairs:
        first.setdefault((pair.chosen.prompt, *(digests[side.image] for side in pair.sides)), pair)
    return list(first.values())


def _good(record: Record) -> tuple[Side, ...]:
    if isinstance(record, Single):
        return (record.side,) if record.label > 0.5 else ()
    return (record.chosen,)


def _nearest(prompt: str, prompts: Sequence[str], draws: Random) -> str:
    """Of some drawn prompts that are not `prompt` the one that shares the largest part of its words with it."""
    drawn = [other for other in draws.sample(prompts, min(_DRAWN, len(prompts))) if other != prompt]
    words = set(prompt.lower().split())
    return max(drawn, key=lambda other: _overlap(words, set(other.lower().split())), default=prompt)


def _overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, len(one | other))


def _prefers(judge: Reward, own: Side, other: Side) -> bool:
    image = open_picture(own.image).convert("RGB")
    scores = judge([image, image], [own.prompt, other.prompt])
    return bool(scores[0] > scores[1])


def _read_run(path: Path) -> tuple[str, list[tuple[Path, str]]]:
    """The prompt of a run, and file and seed of each of its candidates."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        candidates = [(path.parent / row["file"], str(row["seed"])) for row in content["candidates"]]
        return str(content["recipe"]["prompt"]), candidates
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RewardError(f"{path} is no result of generate-best ({error!r}); leave that run out.") from error


def _judged(judge: Reward, paths: Sequence[Path], prompt: str) -> list[Candidate]:
    images = [open_picture(path).convert("RGB") for path in paths]
    scores: Scores = judge(images, [prompt] * len(images))
    return [Candidate(path, score) for path, score in zip(paths, scores.tolist(), strict=True)]


def _liked(candidates: Sequence[tuple[Path, str]], picks: Sequence[str], run: Path) -> list[Candidate]:
    """Candidates with 1 for those that were picked and 0 for others; none of a run that nobody looked at."""
    names = {pick: path for path, seed in candidates for pick in (seed, path.name, f"candidates/{path.name}")}
    unknown = [pick for pick in picks if pick not in names]
    if unknown:
        raise RewardError(f"{run} has no candidate {unknown[0]!r}; pick by file or seed.")
    chosen = {names[pick] for pick in picks}
    return [Candidate(path, float(path in chosen)) for path, _ in candidates] if chosen else []


def _pairs(candidates: Sequence[Candidate], prompt: str, run: Path, *, gap: float, most: int) -> Iterator[Pair]:
    """Pairs of the largest differences, each candidate with as many others as it comes to."""
    ordered = [tuple(sorted(pair, key=lambda each: -each.liking)) for pair in combinations(candidates, 2)]
    told = [(better, worse) for better, worse in ordered if better.liking - worse.liking > gap]
    told.sort(key=lambda pair: pair[1].liking - pair[0].liking)  # a stable sort: ties stay in the order of the run
    for better, worse in told[:most]:
        where = f"{run.parent}: {better.image.name} over {worse.image.name}"
        yield Pair(Side(better.image, prompt), Side(worse.image, prompt), where=where)


def _read_picks(path: Path) -> Mapping[str, list[str]]:
    """Picks by run."""
    picks: dict[str, list[str]] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows: list[Any] = (
            list(csv.DictReader(io.StringIO(text, newline="")))
            if path.suffix.lower() == ".csv"
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
        for row in rows:
            picks.setdefault(str(row["run"]).strip().rstrip("/"), []).append(str(row["pick"]).strip())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RewardError(f"{path} is no file of picks ({error!r}); expected the fields run and pick.") from error
    return picks
