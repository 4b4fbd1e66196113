"""Names that do not exist are answered with the nearest ones that do."""

import difflib
from collections.abc import Iterable, Sequence

from rewards.errors import UnknownRewardError


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """How a sentence about an unknown word ends: ": did you mean 'x'?" with the nearest of `known`, or "."."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {near[0]!r}?" if near else "."


def check_variant(reward: str, variant: str, known: Sequence[str]) -> None:
    """Raise `UnknownRewardError` unless `variant`, what stands behind the colon, is one of `known`."""
    if variant in known:
        return
    names = [f"{reward}:{each}" if each else reward for each in known]
    given = f"{reward}:{variant}" if variant else reward
    raise UnknownRewardError(f"There is no reward {given!r}{did_you_mean(given, names)} Expected {' or '.join(names)}.")
