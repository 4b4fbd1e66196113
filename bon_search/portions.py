"""How an amount is spent on things of different prices: evenly in number, the rest where it still fits."""

from __future__ import annotations

from collections.abc import Sequence


def portions(amount: int, prices: Sequence[int]) -> tuple[int, ...]:
    """How many of each to take, (len(prices),), for at most the amount.

    As many of each as all can have; of what is left one more of each that it pays for, from the last to the first,
    over and over.

    Args:
        amount: At least 0.
        prices: Positive.
    """
    if not prices:
        return ()
    even = amount // sum(prices)
    rest, counts = amount - even * sum(prices), [even] * len(prices)
    while rest >= min(prices):
        for k in reversed(range(len(prices))):
            if prices[k] <= rest:
                counts[k], rest = counts[k] + 1, rest - prices[k]
    return tuple(counts)
