"""Checks of the options that searches share; each refusal is a sentence with the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bon_search.errors import SearchError

if TYPE_CHECKING:
    from bon_search.search import Critic


def check_count(name: str, value: int) -> None:
    """Refuse an option that is not a whole number of at least 1.

    Raises:
        SearchError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SearchError(f"{name} = {value!r} is out of range; give a whole number of at least 1.")


def check_share(name: str, value: float, *, zero: bool = False) -> None:
    """Refuse an option that is not a share: above 0, or 0 too if `zero`, and up to 1.

    Raises:
        SearchError: It is not.
    """
    if isinstance(value, str) or not (0 < value <= 1 or (zero and value == 0)):
        raise SearchError(f"{name} = {value!r} is out of range; give a number {'from' if zero else 'above'} 0 up to 1.")


def check_absolute(critic: Critic, what: str) -> None:
    """Refuse a critic that only ranks, where scores of different looks are compared.

    Args:
        critic: With `absolute` False if its scores depend on the company.
        what: The name of the search.

    Raises:
        SearchError: It only ranks.
    """
    if not getattr(critic, "absolute", True):
        raise SearchError(
            f"{what} compares scores of different rounds, but this critic's reward only ranks the candidates of one "
            "(absolute = False); use best_of_n, halving or search_over_paths."
        )
