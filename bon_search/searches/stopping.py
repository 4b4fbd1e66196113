"""Best-of-N that stops by itself: at a score that is good enough, or when one more candidate no longer pays.

What one more candidate is expected to add to the best of x_1 ≥ … ≥ x_m is the smaller of two estimates:

* of a normal law: E[(X − x_1)⁺] at the mean of the scores and at their deviation, which the deviation usual for this
  reward steadies as `PRIOR` scores would. It knows when the best is a lucky one, but promises too much of a reward that
  saturates.
* of the spacings at the top: i·(x_i − x_{i+1}) have one mean in a tail that falls off exponentially (Rényi, 1953), and
  that mean over m + 1 is the gain. It is small where scores crowd at a ceiling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bon_search.errors import SearchError
from bon_search.search import Critic, Scored, seeds
from bon_search.searches.best_of_n import best_of_n, cost

if TYPE_CHECKING:
    from pipelines.sampler import Sampler

__references__ = ("Rényi, On the theory of order statistics, 1953",)
__cost__ = "at most n·K NFE, n scores"
__all__ = ["best_of_n_until", "cost", "expected_gain"]

FEWEST = 3  # scores before which nothing can be expected of the next
CROWD = 6  # scores from which on their spacings count
PRIOR = 4


def best_of_n_until(
    sampler: Sampler,
    critic: Critic,
    *,
    n: int,
    until: float = math.inf,
    price: float = 0.0,
    deviation: float | None = None,
    batch_size: int = 1,
    seed: int = 0,
) -> Iterator[Scored]:
    """Finish candidates until one scores `until`, or until the next is expected to add less than `price`.

    Args:
        sampler: Any.
        critic: Absolute: scores of different batches are compared.
        n: The most candidates; candidate k starts from seed + k, whenever it stops.
        until: A score that is good enough.
        price: What a candidate must be expected to add, in deviations; 0 never stops. At 0.05 scores of a normal law
            stop after about 7 candidates, at 0.025 after about 12.
        deviation: The reward's usual standard deviation within a prompt (`Previews.deviation`); needed for a price.
        batch_size: Candidates made between two looks at the rule.
        seed: As above.

    Raises:
        SearchError: A number out of range, or a critic that only ranks.
    """
    if not getattr(critic, "absolute", True):
        raise SearchError(
            "A stopping rule compares scores of different batches, but this critic's reward only ranks the candidates "
            "of one (absolute = False); use best_of_n or halving."
        )
    if not 0 <= price < math.inf or math.isnan(until):
        raise SearchError(f"until = {until} and price = {price} are no rule; give a score, and a price of at least 0.")
    if price > 0 and not (deviation and 0 < deviation < math.inf):
        raise SearchError(
            f"A price is in deviations of the reward within a prompt, but the deviation is {deviation}; give that of a "
            "calibration."
        )
    if batch_size < 1:
        raise SearchError(f"batch_size = {batch_size} makes no candidate; give at least 1.")
    seeds(seed, n)
    return _run(best_of_n(sampler, critic, n=n, seed=seed, batch_size=batch_size), until, price, deviation or 1.0)


def expected_gain(scores: Sequence[float], deviation: float) -> float:
    """What one more candidate is expected to add to the highest of these scores, in their unit.

    Args:
        scores: At least 2, in any order.
        deviation: Usual standard deviation of the reward within a prompt.
    """
    normal = _gain_of_normal(scores, deviation)
    return normal if len(scores) < CROWD else min(normal, _gain_of_spacings(scores))


def _gain_of_normal(scores: Sequence[float], deviation: float) -> float:
    m = len(scores)
    mean = sum(scores) / m
    squares = sum((score - mean) ** 2 for score in scores) + PRIOR * deviation**2
    spread = math.sqrt(squares / (PRIOR + m - 1) * (1 + 1 / m))
    z = (max(scores) - mean) / spread
    return spread * (math.exp(-z * z / 2) / math.sqrt(2 * math.pi) - z * math.erfc(z / math.sqrt(2)) / 2)


def _gain_of_spacings(scores: Sequence[float]) -> float:
    ordered, m = sorted(scores, reverse=True), len(scores)
    top = max(3, m // 3)
    return sum(i * (ordered[i - 1] - ordered[i]) for i in range(1, top + 1)) / top / (m + 1)


def _run(looks: Iterator[Scored], until: float, price: float, deviation: float) -> Iterator[Scored]:
    scores: list[float] = []
    for look in looks:
        yield look
        scores += look.scores.tolist()
        dear = price > 0 and len(scores) >= FEWEST and expected_gain(scores, deviation) <= price * deviation
        if dear or max(scores) >= until:
            return
