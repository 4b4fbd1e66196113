"""Second opinions: rewards that took no part in the choice say what they think of the candidates.

A winner that the reward prefers and the others do not is a sign of reward hacking: the search has found what the reward
overrates. So each opinion says how far it agrees with the ranking, and warns if it holds the winner for worse than a
candidate taken at random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bon_search.agreement import Agreement, agreement, spearman
from bon_search.errors import SearchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from bon_search.result import Candidate, SearchResult
    from rewards import Reward


AT_ONCE = 8  # candidates in one call of a judge


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
    for reward in rewards:
        if not reward.absolute:
            raise SearchError(f"{reward.name} only ranks candidates; as a second opinion name one that scores them.")
    candidates = result.candidates
    if not candidates:
        return result
    given = [candidate.score for candidate in candidates]
    said = [judged(candidates, result.recipe.prompt, reward) for reward in rewards]
    opinions = [_opinion(reward.name, scores, given) for reward, scores in zip(rewards, said, strict=True)]
    cost = replace(result.cost, rewards=result.cost.rewards + len(candidates) * len(rewards))
    return replace(result, opinions=tuple(opinions), cost=cost)


def judged(candidates: Sequence[Candidate], prompt: str, judge: Reward) -> list[float]:
    """What a reward says of finished pictures as they would be saved; of a video, the mean over its key frames.

    Raises:
        RewardError: The reward fails, or gives no finite score for each.
    """
    import torch

    from pipelines.foreign import one_line
    from rewards.base import check_scores
    from rewards.errors import RewardError

    found: list[float] = []
    for start in range(0, len(candidates), AT_ONCE):
        shown = [_shown(candidate) for candidate in candidates[start : start + AT_ONCE]]  # (1 or 2, 3, H, W) each
        images = torch.cat(shown)
        try:
            with torch.no_grad():
                scores = judge(images, [prompt] * len(images))
        except RewardError:
            raise
        except Exception as error:  # other people's code: what it says, in one sentence; the cause stays attached
            said = f"{type(error).__name__}: {one_line(error)}"
            raise RewardError(
                f"The judge {judge.name} failed ({said}); see its documentation, or choose another."
            ) from error
        parts = torch.split(check_scores(scores, judge.name, len(images)), [len(frames) for frames in shown])
        found += [float(part.mean()) for part in parts]
    return found


def _shown(candidate: Candidate) -> Tensor:
    from pipelines.video import key_frames
    from rewards.base import as_images

    frames = as_images(list(candidate.frames))  # (F, 3, H, W)
    return frames if len(frames) == 1 else key_frames(frames[None])[0]


def agreement_of(result: SearchResult) -> Agreement:
    """How far the reward that chose and the held-out ones rank alike; candidates without a score are left out."""
    known = [k for k, candidate in enumerate(result.candidates) if not math.isnan(candidate.score)]
    chosen = [result.candidates[k].score for k in known]
    others = [[opinion.scores[k] for k in known] for opinion in result.opinions]
    return agreement([result.recipe.reward, *(opinion.name for opinion in result.opinions)], [[chosen, *others]])


def _opinion(name: str, scores: Sequence[float], given: Sequence[float]) -> Opinion:
    known = [k for k, score in enumerate(given) if not math.isnan(score)]
    agreement = spearman([scores[k] for k in known], [given[k] for k in known]) if len(known) > 1 else math.nan
    mean = sum(scores) / len(scores)
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
    return Opinion(name, tuple(scores), agreement, (scores[0] - mean) / deviation if deviation > 0 else 0.0)
