"""How an amount is spent on things of different prices: evenly in number, the rest where it still fits."""

from __future__ import annotations

from collections.abc import Sequence


def portions(amount: int, prices: Sequence[int]) -> tuple[int, ...]:
    """How many of each to take, (len(prices),), for at most the amount.

    As many of each as all can have, then one more of each, from the last to the first, that is still paid for.

    Args:
        amount: At least 0.
        prices: Positive.
    """
    if not prices:
        return ()
    even = amount // sum(prices)
    rest, counts = amount - even * sum(prices), [even] * len(prices)
    for k in reversed(range(len(prices))):
        if prices[k] <= rest:
            counts[k], rest = even + 1, rest - prices[k]
    return tuple(counts)
