"""Pandora's rule: look into the candidate that promises most for its cost, and stop when none is worth its price.

Each move takes the candidate of the highest reservation value (`bon_search.reservation`) to its next look, or starts a
new one. It needs a `Forecast` of this model and reward, fitted to previews of other prompts; what this prompt's
candidates show tells how easy it is, so that effort goes to prompts on which it pays. With one candidate a move it is
sequential: a batch takes along the next best ones at the same step that are worth going on with, so that it is better
filled but knows less when it chooses.

References:
    Weitzman, "Optimal search for the best alternative", 1979.
    Dumitriu, Tetali and Winkler, "On playing golf with two balls", 2003.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bon_search.errors import SearchError
from bon_search.forecast import Forecast
from bon_search.ledger import Cost
from bon_search.reservation import Reservations, Tally
from bon_search.search import Critic, Scored, seeds
from pipelines.particles import Particles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from pipelines.sampler import Sampler

__references__ = (
    "Weitzman, Optimal search for the best alternative, 1979",
    "Dumitriu, Tetali and Winkler, On playing golf with two balls, 2003",
)
__cost__ = "at most n·K NFE, n·(looks + 1) scores"


def pandora(
    sampler: Sampler,
    critic: Critic,
    *,
    n: int,
    forecast: Forecast | str | Path,
    price: float | None = None,
    width: int = 4,
    seed: int = 0,
) -> Iterator[Scored]:
    """Take the most promising candidates on, look by look, until none is worth its price.

    Args:
        sampler: Any; a deterministic one is best.
        critic: Absolute: scores of different moves are compared.
        n: The most candidates to start; candidate k starts from seed + k.
        forecast: Of this model and reward, or the file of one.
        price: What one denoiser step must be expected to add to the best score, in deviations of the reward within a
            prompt; the forecast's when None.
        width: Candidates that move together at most; 1 chooses best, more fill a batch.
        seed: As above.

    Yields:
        The candidates of each move at the look, or the end, that they reach.

    Raises:
        SearchError: A number out of range, a forecast that cannot be read or does not suit the number of steps, a
            critic that only ranks, or a score that is NaN.
    """
    known = _forecast(forecast)
    value = known.price if price is None else price
    if not 0 < value < math.inf:
        raise SearchError(f"price = {value} is none; give what a step must add, above 0, such as {known.price:.2g}.")
    if width < 1:
        raise SearchError(f"width = {width} moves no candidate; give at least 1.")
    if not getattr(critic, "absolute", True):
        raise SearchError(
            "This search compares scores of different moves, but this critic's reward only ranks the candidates of "
            "one (absolute = False); use best_of_n or halving."
        )
    starts = seeds(seed, n)
    return _run(sampler, critic, starts, Reservations(known, sampler.steps, value), width)


def cost(n: int, steps: int, forecast: Forecast | str | Path) -> Cost:
    """What `pandora` spends at most: all n candidates looked at to the end."""
    scored = n * len(_forecast(forecast).places(steps))
    return Cost(nfe=n * steps, rewards=scored, decodes=scored)


@dataclass(frozen=True)
class _Box:
    """A candidate: how many looks it has had, where it stands (None before it starts), what it scored."""

    seed: int
    stage: int = 0
    particle: Particles | None = None
    scores: tuple[float, ...] = ()
    known: float = 0.0  # sum of its known parts


def _run(sampler: Sampler, critic: Critic, starts: Sequence[int], values: Reservations, width: int) -> Iterator[Scored]:
    boxes = [_Box(start) for start in starts]
    places = values.forecast.places(sampler.steps)
    tally, best = Tally.empty(1, len(places)), -math.inf
    while chosen := _worth(boxes, values.offsets(tally, torch.tensor([best], dtype=torch.float64))[0], best, width):
        stage = boxes[chosen[0]].stage
        particles = sampler.advance(_join(sampler, [boxes[k] for k in chosen]), to=places[stage])
        scores = critic(particles)
        yield Scored(particles, scores)
        parts = []
        for row, (k, score) in enumerate(zip(chosen, scores.tolist(), strict=True)):
            boxes[k], part = _opened(boxes[k], particles[[row]], score, values.forecast)
            parts.append(part)
            best = max(best, boxes[k].known) if stage == len(places) - 1 else best
        seen = torch.tensor([parts], dtype=torch.float64)
        tally = tally.add(torch.tensor([stage]), seen, torch.ones_like(seen, dtype=torch.bool))


def _worth(boxes: Sequence[_Box], offsets: Tensor, best: float, width: int) -> list[int]:
    """The places of up to `width` candidates at one step, best first; none if none exceeds the best finished one.

    Beside the best of all, only those count that promise no less than a new one would.
    """
    values = [box.known + float(offsets[box.stage]) for box in boxes]
    order = sorted(range(len(boxes)), key=lambda k: -values[k])  # ties go to the lowest place
    stage = boxes[order[0]].stage
    least = max((values[k] for k in order if boxes[k].stage == 0), default=-math.inf)
    return [k for k in order if boxes[k].stage == stage and values[k] > best and values[k] >= least][:width]


def _join(sampler: Sampler, boxes: Sequence[_Box]) -> Particles:
    """Their particles as one population; new ones start."""
    started = [box.particle for box in boxes if box.particle is not None]
    return Particles.cat(started) if started else sampler.init([box.seed for box in boxes])


def _opened(box: _Box, particle: Particles, score: float, forecast: Forecast) -> tuple[_Box, float]:
    """The candidate after a look, and the part that the look made known."""
    if math.isnan(score):
        raise SearchError(
            f"The candidate of seed {box.seed} has the score NaN, so it cannot be ranked; look for the fault in the "
            "reward."
        )
    scores = (*box.scores, score)
    part = float(forecast.parts(torch.tensor(scores, dtype=torch.float64))[-1])
    done = box.stage + 1
    return replace(box, stage=done, particle=particle, scores=scores, known=box.known + part), part


def _forecast(forecast: Forecast | str | Path) -> Forecast:
    return forecast if isinstance(forecast, Forecast) else Forecast.load(forecast)
