"""Several rows that begin alike, as prompts on one picture do: what they begin with runs once.

Beginning and ends go through the decoder side by side, layer by layer, so that keys and values of one layer are all
that is ever held. The ends lie one behind the other as a single row, in which each sees the beginning and itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from rewards.llava.backbone import Backbone, Embedded
from rewards.llava.decoder import finish, keys_values, layers_until, run, run_keeping


def common_start(rows: Sequence[Sequence[int]]) -> int:
    """How many first ids are the same in all rows; at least one of each is left over."""
    most = min(len(row) for row in rows) - 1
    first = rows[0]
    return next((place for place in range(most) if any(row[place] != first[place] for row in rows)), most)


def read_last(backbone: Backbone, rows: Iterable[Embedded], *, start: int, layer: int | None = None) -> Tensor:
    """Hidden states (B, 1, H) at the last position of each of B rows.

    Args:
        backbone: gives layers and final norm.
        rows: (1, L, H) of any lengths, embedded one by one as they are asked for; of all but the first only the end is
            kept.
        start: in how many first positions all have the same ids, at least 1.
        layer: as in `decoder.read`, but not 0.
    """
    groups: list[_Group] = []
    for number, row in enumerate(rows):
        beginning = _part(row, 0, start)
        group = next((group for group in groups if _same(group.beginning, beginning)), None)
        if group is None:  # the first; or a very long row, in which Phi turns by other angles
            group = _Group(beginning, [], [])
            groups.append(group)
        group.numbers.append(number)
        group.ends.append(_part(row, start))
    states = torch.cat([_read_ends(backbone, group.beginning, group.ends, layer) for group in groups])
    numbers = torch.tensor([number for group in groups for number in group.numbers])
    return states[numbers.argsort().to(states.device)]


def _read_ends(backbone: Backbone, beginning: Embedded, ends: Sequence[Embedded], layer: int | None) -> Tensor:
    packs = [_Pack.of(few, beginning) for few in _few(ends, beginning.x.shape[1])]
    layers = layers_until(backbone.layers, layer)
    for block in layers[:-1]:
        beginning, past = run_keeping(block, beginning, None)
        packs = [replace(pack, inputs=run(block, pack.inputs, pack.mask, past=past)) for pack in packs]
    past = keys_values(layers[-1], beginning)
    read = [run(layers[-1], pack.inputs, pack.mask[:, :, pack.last[0]], rows=pack.last, past=past) for pack in packs]
    return finish(backbone, torch.cat([inputs.x for inputs in read], dim=1), layer).transpose(0, 1)


@dataclass(frozen=True)
class _Group:
    """Rows that begin alike: their beginning (1, P, H), their numbers, and what each goes on with."""

    beginning: Embedded
    numbers: list[int]
    ends: list[Embedded]


@dataclass(frozen=True)
class _Pack:
    """Some ends as one row of T positions: what runs, `mask` (1, 1, T, P + T), and `last` (1, R), where each stops."""

    inputs: Embedded
    mask: Tensor
    last: Tensor

    @classmethod
    def of(cls, ends: Sequence[Embedded], beginning: Embedded) -> "_Pack":
        lengths = torch.tensor([end.x.shape[1] for end in ends], device=beginning.x.device)
        owner = torch.arange(len(ends), device=lengths.device).repeat_interleave(lengths)  # (T,)
        own = (owner[:, None] == owner).tril()  # (T, T)
        inputs = Embedded(
            torch.cat([end.x for end in ends], dim=1),
            torch.cat([end.cos for end in ends], dim=2),
            torch.cat([end.sin for end in ends], dim=2),
            torch.cat([end.mask for end in ends], dim=1),
        )
        return cls(inputs, F.pad(own, (beginning.x.shape[1], 0), value=True)[None, None], lengths.cumsum(0)[None] - 1)


def _few(ends: Sequence[Embedded], most: int) -> list[list[Embedded]]:
    """Consecutive ends, together no longer than `most`, unless a single one is."""
    groups: list[list[Embedded]] = []
    room = 0
    for end in ends:
        length = end.x.shape[1]
        if not groups or length > room:
            groups.append([])
            room = most
        groups[-1].append(end)
        room -= length
    return groups


def _part(row: Embedded, start: int, stop: int | None = None) -> Embedded:
    """Positions from `start` to `stop`, copied, so that the rest can be forgotten."""
    cut = slice(start, stop)
    parts = row.x[:, cut], row.cos[:, :, cut], row.sin[:, :, cut], row.mask[:, cut]
    return Embedded(*(part.clone() for part in parts))


def _same(one: Embedded, other: Embedded) -> bool:
    """Whether the decoder makes the same of both."""
    return torch.equal(one.x, other.x) and torch.equal(one.cos, other.cos)
