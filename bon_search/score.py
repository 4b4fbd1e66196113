"""Score pictures that exist: read, group by size, score in batches, one outcome per picture as soon as it is known.

Nothing is printed or written here; `bon_search.score_cli` does that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from bon_search.errors import SearchError
from bon_search.pictures import content_of, prompt_of, rgb
from bon_search.score_table import Entry, Outputs, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from PIL import Image
    from torch import Tensor

    from bon_search.score_jobs import Job
    from bon_search.score_table import Key
    from rewards import Images, Reward

BATCH = 16  # pictures in one call of the reward, unless told otherwise
WAITING = 8  # batches' worth of pictures of rare sizes that wait for company before the fullest group is scored
PIXELS = 1 << 26  # decoded pixels in memory, 0.2 GB of RGB bytes


@dataclass(frozen=True)
class Failure:
    """A picture that has no score.

    Attributes:
        image: Its path as it was asked for.
        reason: What is wrong and how to mend it; continues a sentence that begins with the path.
    """

    image: str
    reason: str


@dataclass(frozen=True)
class _Read:
    entry: Entry
    image: Image.Image  # RGB, 8 bits


@dataclass(frozen=True)
class _Judge:
    name: str
    ask: Callable[[Images, Sequence[str]], Tensor]  # scores (n,), or with `compares` what the head gives, (n, d)
    compares: bool


Outcome: TypeAlias = Row | Outputs | Failure


def score_pictures(
    jobs: Iterable[Job],
    reward: Reward,
    *,
    spec: str = "",
    batch_size: int = BATCH,
    known: Mapping[Key, Row] | Mapping[Key, Outputs] | None = None,
    allow_empty: bool = False,
) -> Iterator[Outcome]:
    """Score every picture; pictures of one size share batches, so outcomes come in another order than the jobs.

    A picture that cannot be read, or that the reward refuses, becomes a `Failure` and the others go on. A batch that
    fails or does not fit into memory is halved until the picture at fault is alone.

    Args:
        jobs: What to score; the same picture and prompt twice are scored once.
        reward: One with absolute scores, or one that compares (`rewards.preferences.Compares`); of the latter come
            `Outputs`, from which `bon_search.tournament` makes scores when all are there.
        spec: What the reward is called in rows; its name if empty.
        batch_size: Most pictures in one call of the reward.
        known: Rows of earlier runs; what is there is given out again instead of being scored.
        allow_empty: Take pictures that have no prompt, with an empty one.

    Raises:
        SearchError: The batch size is not positive, or the reward's scores depend on the other pictures and it offers
            nothing that could be compared later.
    """
    if batch_size < 1:
        raise SearchError(f"batch_size = {batch_size} leaves no picture per call of the reward; give at least 1.")
    judge = _judge(reward, spec or reward.name)
    blank = blank_entry(reward, spec)
    groups: dict[tuple[int, int], list[_Read]] = {}
    for item in _read(jobs, blank, known or {}, allow_empty=allow_empty):
        if not isinstance(item, _Read):
            yield item
            continue
        groups.setdefault(item.image.size, []).append(item)
        ripe = _ripe(groups, item.image.size, batch_size)
        if ripe:
            yield from _scored(groups.pop(ripe), judge)
    for group in groups.values():
        yield from _scored(group, judge)


def _judge(reward: Reward, spec: str) -> _Judge:
    from rewards.preferences import Compares

    if reward.absolute:
        return _Judge(reward.name, reward, compares=False)
    if not isinstance(reward, Compares):
        raise SearchError(
            f"The reward {spec!r} only compares the pictures of one batch, which gives no score to write down; choose "
            "a reward with absolute scores, or one with heads and chances (rewards.preferences.Compares)."
        )
    return _Judge(reward.name, reward.heads, compares=True)


def blank_entry(reward: Reward, spec: str = "") -> Entry:
    """What all rows of a reward have in common."""
    return Entry("", "", spec or reward.name, str(getattr(reward, "revision", "")), "")


def entries(jobs: Iterable[Job], blank: Entry, *, allow_empty: bool = False) -> Iterator[Entry | Failure]:
    """What is to be scored, each once, and what cannot be: files are read and prompts looked up, nothing is decoded."""
    for item, _ in _named(jobs, blank, allow_empty=allow_empty):
        yield item


def _named(jobs: Iterable[Job], blank: Entry, *, allow_empty: bool) -> Iterator[tuple[Entry | Failure, bytes]]:
    asked: set[Key] = set()
    for job in jobs:
        content = b""
        try:
            content = content_of(job.image)
            prompt = _checked(
                prompt_of(job.image, content, allow_empty=allow_empty) if job.prompt is None else job.prompt
            )
            entry = replace(blank, image=str(job.image), prompt=prompt, sha256=hashlib.sha256(content).hexdigest())
        except SearchError as error:
            yield Failure(str(job.image), str(error)), content
            continue
        if entry.key not in asked:
            asked.add(entry.key)
            yield entry, content


def _read(
    jobs: Iterable[Job], blank: Entry, known: Mapping[Key, Row] | Mapping[Key, Outputs], *, allow_empty: bool
) -> Iterator[_Read | Outcome]:
    """Known rows and failures as they are, all else decoded."""
    for item, content in _named(jobs, blank, allow_empty=allow_empty):
        if isinstance(item, Failure):
            yield item
        elif item.key in known:
            yield known[item.key]
        else:
            try:
                yield _Read(item, rgb(content))
            except SearchError as error:
                yield Failure(item.image, str(error))


def _checked(prompt: str) -> str:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise SearchError(f"has a prompt that is not valid text ({prompt!r:.60}); write it in UTF-8.") from error
    return prompt


def _ripe(
    groups: Mapping[tuple[int, int], Sequence[_Read]], newest: tuple[int, int], batch_size: int
) -> tuple[int, int] | None:
    """The size whose group is to be scored now: a full one, or the largest when memory is full."""
    if len(groups[newest]) >= batch_size:
        return newest
    pixels = {size: size[0] * size[1] * len(group) for size, group in groups.items()}
    waiting = sum(len(group) for group in groups.values())
    if sum(pixels.values()) >= PIXELS:
        return max(pixels, key=lambda size: pixels[size])
    return max(groups, key=lambda size: len(groups[size])) if waiting >= WAITING * batch_size else None


def _scored(group: Sequence[_Read], judge: _Judge) -> Iterator[Outcome]:
    given = _attempt(group, judge)
    if not isinstance(given, str):
        for item, numbers in zip(group, given.tolist(), strict=True):
            entry = item.entry
            yield Outputs(**vars(entry), outputs=tuple(numbers)) if judge.compares else entry.scored(numbers)
    elif len(group) == 1:
        yield Failure(group[0].entry.image, given)
    else:
        middle = len(group) // 2
        yield from _scored(group[:middle], judge)
        yield from _scored(group[middle:], judge)


def _attempt(group: Sequence[_Read], judge: _Judge) -> Tensor | str:
    """What was asked for, or why there is nothing: returned, not raised, so that a failed call's memory is free."""
    import torch

    from pipelines.microbatch import is_out_of_memory
    from rewards.base import as_images, check_scores
    from rewards.errors import RewardError

    try:
        with torch.no_grad():
            given = judge.ask(as_images([item.image for item in group]), [item.entry.prompt for item in group])
        return given if judge.compares else check_scores(given, judge.name, len(group))
    except RewardError as error:
        return f"cannot be scored: {error}"
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return "does not fit into the memory of the device; make it smaller, or choose --device cpu."


def ranked(rows: Iterable[Row], *, top: int | None = None, least: float | None = None) -> list[Row]:
    """Best first, ties in the order of their paths; at most `top` rows, none below `least`."""
    kept = [row for row in rows if least is None or row.score >= least]
    return sorted(kept, key=lambda row: (-row.score, row.image))[:top]
