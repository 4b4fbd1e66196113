"""Second opinions: rewards that took no part in the choice say what they think of the candidates.

A winner that the reward prefers and the others do not is a sign of reward hacking: the search has found what the reward
overrates. So each opinion says how far it agrees with the ranking, and warns if it holds the winner for worse than a
candidate taken at random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bon_search.errors import SearchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bon_search.result import SearchResult
    from rewards import Reward


@dataclass(frozen=True)
class Opinion:
    """What a held-out reward says of the candidates of a run.

    Attributes:
        name: Of the reward.
        scores: Of the candidates, in rank order.
        agreement: Spearman's correlation with the ranking, -1 … 1; NaN if one of both says the same of all.
        lead: How far the winner is above the candidates' mean, in their standard deviations; 0 if all are alike.
    """

    name: str
    scores: tuple[float, ...]
    agreement: float
    lead: float

    @property
    def sentence(self) -> str:
        """The opinion in one line; a warning if the winner is worse than a candidate at random."""
        said = f"{self.name}: winner {self.scores[0]:.4g}, {self.lead:+.2f} deviations from the mean of all candidates"
        agreed = "" if math.isnan(self.agreement) else f", agreement of the rankings {self.agreement:+.2f}"
        warning = "; it prefers a candidate at random: the winner may please the reward alone" if self.lead < 0 else ""
        return f"{said}{agreed}{warning}."


def with_opinions(result: SearchResult, rewards: Sequence[Reward]) -> SearchResult:
    """The result with the opinions of held-out rewards; their calls are added to its cost.

    Raises:
        SearchError: A reward that only compares; it has no scores to show.
        RewardError: A reward that fails.
    """
    from rewards.base import check_scores

    for reward in rewards:
        if not reward.absolute:
            raise SearchError(f"{reward.name} only ranks candidates; as a second opinion name one that scores them.")
    images = [candidate.image for candidate in result.candidates]
    prompts, given = [result.recipe.prompt] * len(images), [candidate.score for candidate in result.candidates]
    opinions = []
    for reward in rewards:
        scores = check_scores(reward(images, prompts), reward.name, len(images)).tolist() if images else []
        opinions.append(_opinion(reward.name, scores, given))
    cost = replace(result.cost, rewards=result.cost.rewards + len(images) * len(rewards))
    return replace(result, opinions=tuple(opinions), cost=cost)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation of two sequences; NaN if one of them is constant."""
    import torch

    from rewards.combine import ranks

    a, b = (ranks(torch.tensor(values, dtype=torch.float64)) for values in (first, second))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())


def _opinion(name: str, scores: Sequence[float], given: Sequence[float]) -> Opinion:
    known = [k for k, score in enumerate(given) if not math.isnan(score)]
    agreement = spearman([scores[k] for k in known], [given[k] for k in known]) if len(known) > 1 else math.nan
    mean = sum(scores) / len(scores)
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
    return Opinion(name, tuple(scores), agreement, (scores[0] - mean) / deviation if deviation > 0 else 0.0)
