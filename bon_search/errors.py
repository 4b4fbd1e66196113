"""What can go wrong by the user's hand; each message is one sentence with the cure.

ValueError
├── pipelines.errors.PipelineError     the model, its scheduler, its sizes
├── rewards.errors.RewardError         the reward, its checkpoint, its scores
└── SearchError                        the run: counts, budgets, folders, recipes
    ├── BudgetExceeded                 the next move would overshoot the budget
    └── NothingFinished                the budget ended before there was a candidate
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines import Particles


class SearchError(ValueError):
    """A run was asked for something it cannot do."""


class BudgetExceeded(SearchError):
    """The next move would overshoot the budget; nothing of it has been spent.

    Attributes:
        particles: Whom the move was for, if it is known; the rest of the budget may suffice for some of them.
    """

    particles: Particles | None = None


class NothingFinished(SearchError):
    """A run ended before its first candidate was finished."""

    def __init__(self) -> None:
        super().__init__("The run ended before its first candidate was finished; allow it more cost or time.")


def is_users(error: BaseException) -> bool:
    """Whether an error is one of the tree: a command prints its sentence, where any other is a fault of ours."""
    from pipelines.errors import PipelineError
    from rewards.errors import RewardError

    return isinstance(error, (SearchError, PipelineError, RewardError))
