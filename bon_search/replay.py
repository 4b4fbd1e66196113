"""Replays of the search `pandora` on candidates whose scores on the way are all known.

The replayed policy sees of them what it pays for. All prompts and orders move together, as one batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch

from bon_search.calibrate import Previews, best_of_n_score
from bon_search.errors import SearchError
from bon_search.forecast import fit
from bon_search.reservation import Reservations, Tally
from pipelines.noise import derive

if TYPE_CHECKING:
    from torch import Tensor

    from bon_search.forecast import Forecast


@dataclass(frozen=True, eq=False)
class Replay:
    """Means over the orders, for each of P prompts.

    Attributes:
        cost: (P,) in denoiser steps.
        score: (P,) of the best finished candidate.
        started: (P,) candidates.
    """

    cost: Tensor
    score: Tensor
    started: Tensor


@dataclass(frozen=True, eq=False)
class _State:
    """E searches under way over M candidates each, B of which move at once."""

    row: Tensor  # (E,) which search
    parts: Tensor  # (E, M, J)
    finals: Tensor  # (E, M) on the user's scale
    stage: Tensor  # (E, M) parts known
    known: Tensor  # (E, M) their sum
    started: Tensor  # (E,)
    cost: Tensor  # (E,)
    best: Tensor  # (E,) on the scale w
    score: Tensor  # (E,) on the user's scale
    tally: Tally

    def __getitem__(self, index: Tensor) -> _State:
        return _State(*(getattr(self, field.name)[index] for field in fields(self)))


def replay(
    forecast: Forecast,
    previews: Previews,
    *,
    price: float,
    n: int = 64,
    batch_size: int = 1,
    draws: int = 16,
    seed: int = 0,
) -> Replay:
    """Search P prompts by reservation values, each in `draws` random orders of its M candidates.

    Args:
        forecast: Made for the looks of the previews.
        previews: Of P prompts; their `look_cost` and `steps` count.
        price: As in `Forecast`.
        n: The most candidates to start.
        batch_size: Candidates that move together, all from one look to the next.
        draws: Orders for each prompt.
        seed: Of the orders.
    """
    prompts, m, _ = previews.scores.shape
    generator = torch.Generator().manual_seed(derive("replays", seed))
    order = torch.rand(prompts, draws, m, generator=generator).argsort(dim=-1)[..., :n].flatten(0, 1)  # (E, n)
    return replay_in_order(forecast, previews, order, price=price, batch_size=batch_size)


def reach(
    forecast: Forecast,
    previews: Previews,
    wanted: float,
    *,
    n: int = 64,
    batch_size: int = 1,
    draws: int = 16,
    seed: int = 0,
) -> tuple[float, Replay]:
    """The highest price, within 1 %, at which the mean score over prompts is at least `wanted`, and its replay.

    Args:
        forecast: As for `replay`; its price is where to begin.
        previews: As for `replay`.
        wanted: Mean score.
        n: As for `replay`, and so the rest.
        batch_size: As there.
        draws: As there.
        seed: As there; all prices see the same orders.

    Raises:
        SearchError: No price does, since n is too small.
    """

    def at(price: float) -> Replay:
        return replay(forecast, previews, price=price, n=n, batch_size=batch_size, draws=draws, seed=seed)

    def good(found: Replay) -> bool:
        return float(found.score.mean()) >= wanted

    low, high, factor = forecast.price, forecast.price, 1.3
    found = at(low)
    while not good(found):
        high, low = low, low / factor
        if low < forecast.price / 1000:
            raise SearchError(f"{n} candidates do not reach a mean score of {wanted:g} at any price; allow more.")
        found = at(low)
    while high <= low and good(better := at(low * factor)):
        low, high, found = low * factor, low * factor, better
    high = max(high, low * factor) if high <= low else high
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        trial = at(middle)
        low, high, found = (middle, high, trial) if good(trial) else (low, middle, found)
    return low, found


def calibrate_forecast(
    previews: Previews, *, target: int = 16, n: int = 64, batch_size: int = 1, draws: int = 16, seed: int = 0
) -> tuple[Forecast, float]:
    """The forecast of what was measured, priced so that the mean score is that of best-of-`target`.

    Args:
        previews: Of at least 16 prompts, better 50 or more, with at least 3·target candidates each.
        target: N of best-of-N.
        n: The most candidates to start.
        batch_size: As the search will be run.
        draws: Orders for each prompt.
        seed: Of the replays.

    Returns:
        The forecast, and its cost relative to best-of-`target` on prompts that it did not see: each half of the
        prompts is searched with the forecast of the other. A ratio of 1 or more says that it does not pay.

    Raises:
        SearchError: Too few prompts or candidates.
    """
    if previews.scores.shape[1] < 3 * target:
        raise SearchError(
            f"To compare with best-of-{target}, a calibration needs {3 * target} candidates for each prompt, but it "
            f"has {previews.scores.shape[1]}; measure more, or choose a smaller target."
        )
    whole = target * (previews.steps + previews.look_cost)

    def priced(seen: Previews, unseen: Previews) -> tuple[Forecast, float]:
        forecast = fit(seen)
        wanted = best_of_n_score(unseen.scores[..., -1], target)
        price, found = reach(forecast, unseen, wanted, n=n, batch_size=batch_size, draws=draws, seed=seed)
        return replace(forecast, price=price), float(found.cost.mean()) / whole

    halves = [replace(previews, scores=previews.scores[start::2]) for start in (0, 1)]
    ratios = [priced(seen, unseen)[1] for seen, unseen in (halves, halves[::-1])]
    return priced(previews, previews)[0], sum(ratios) / 2


def replay_in_order(
    forecast: Forecast, previews: Previews, order: Tensor, *, price: float, batch_size: int = 1
) -> Replay:
    """As `replay`, with given orders (P · draws, n) of the candidates."""
    prompts = len(previews.scores)
    values = Reservations(replace(forecast, look_cost=previews.look_cost), previews.steps, price)
    state = _start(forecast, previews, order)
    ended = torch.zeros(len(order), 3, dtype=torch.float64)
    while len(state.row):
        index, fresh = _reserved(state, values, batch_size)
        over = index.max(dim=1).values <= state.best
        ended[state.row[over]] = torch.stack([state.cost, state.score, state.started.double()], dim=1)[over]
        state, index, fresh = state[~over], index[~over], fresh[~over]
        if len(state.row):
            state = _move(state, index, fresh, values.costs, batch_size)
    cost, score, started = ended.view(prompts, -1, 3).mean(dim=1).T
    return Replay(cost, score, started)


def _start(forecast: Forecast, previews: Previews, order: Tensor) -> _State:
    searches, n = order.shape
    prompt = torch.arange(len(previews.scores)).repeat_interleave(searches // len(previews.scores))
    scores = previews.scores.double()
    nothing = torch.zeros(searches, dtype=torch.float64)
    return _State(
        row=torch.arange(searches),
        parts=forecast.parts(scores)[prompt[:, None], order],
        finals=scores[..., -1][prompt[:, None], order],
        stage=torch.zeros(searches, n, dtype=torch.long),
        known=torch.zeros(searches, n, dtype=torch.float64),
        started=torch.zeros(searches, dtype=torch.long),
        cost=nothing,
        best=nothing - math.inf,
        score=nothing - math.inf,
        tally=Tally.empty(searches, scores.shape[2]),
    )


def _reserved(state: _State, values: Reservations, batch_size: int) -> tuple[Tensor, Tensor]:
    """Reservation values (E, W) of the candidates at hand and of the next to start, and (E,) of a new one."""
    width = min(int(state.started.max()) + batch_size, state.stage.shape[1])
    offsets = values.offsets(state.tally, state.best)  # (E, J + 1)
    index = state.known[:, :width] + offsets.gather(1, state.stage[:, :width])
    unborn = torch.arange(width) >= (state.started + batch_size)[:, None]
    fresh = offsets[:, 0].masked_fill(state.started == state.stage.shape[1], -math.inf)
    return index.masked_fill(unborn, -math.inf), fresh


def _move(state: _State, index: Tensor, fresh: Tensor, costs: Tensor, batch_size: int) -> _State:
    """Take the stage of the best candidate with it and with the next best at the same stage that are worth it."""
    first = index.argmax(dim=1, keepdim=True)
    stage = state.stage.gather(1, first)  # (E, 1)
    worth = (index > state.best[:, None]) & (index >= fresh[:, None])
    alike = index.masked_fill(~worth | (state.stage[:, : index.shape[1]] != stage), -math.inf)
    if batch_size == 1:
        chosen, valid = first, torch.ones_like(first, dtype=torch.bool)
    else:
        ranked = alike.sort(dim=1, descending=True, stable=True)
        chosen, valid = ranked.indices[:, :batch_size], ranked.values[:, :batch_size] > -math.inf
    part = state.parts.gather(1, chosen[..., None].expand(-1, -1, len(costs))).gather(
        2, stage[:, :, None].expand(-1, chosen.shape[1], 1)
    )[..., 0]  # (E, B)
    known = state.known.scatter_add(1, chosen, part * valid)
    final = valid & (stage == len(costs) - 1)
    best = known.gather(1, chosen).masked_fill(~final, -math.inf).max(dim=1).values
    score = state.finals.gather(1, chosen).masked_fill(~final, -math.inf).max(dim=1).values
    return replace(
        state,
        stage=state.stage.scatter_add(1, chosen, valid.long()),
        known=known,
        started=state.started + (valid & (stage == 0)).sum(dim=1),
        cost=state.cost + costs[stage[:, 0]] * valid.sum(dim=1),
        best=torch.maximum(state.best, best),
        score=torch.maximum(state.score, score),
        tally=state.tally.add(stage[:, 0], part, valid),
    )
