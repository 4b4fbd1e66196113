"""Several rewards as one: calibrated sums, sums of ranks, cascades, hard constraints.

A sum of scores in units of each reward's own within-prompt deviation is the best known way to combine rewards that
disagree, and unlike ranks it does not change when a candidate is added; so it is the default wherever the deviations
are known. Elsewhere a sum is one of ranks. These need no calibration, and cascades save the dear reward most of the
work, but both depend on the company.

Deviations come from `rewards.calibration`.
"""

import hashlib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from rewards.base import ImagesLike, Reward, Scores, check_prompts, check_scores
from rewards.grammar import Bound, Cascade, Named, Node, Rank, Subject, Sum

REFUSED = 1e6  # what breaking a constraint costs: more than any score, and finite, so that searches can go on
COMPARE: dict[str, Callable[[Tensor, float], Tensor]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class CalibratedSum:
    """Σ weight·score/deviation; absolute if all its rewards are.

    Attributes:
        name: The specification.
        terms: Weight, reward and deviation within a prompt (1 leaves the score as it is).
    """

    name: str
    terms: tuple[tuple[float, Reward, float], ...]

    @property
    def absolute(self) -> bool:
        """Whether scores can be compared over time."""
        return all(reward.absolute for _, reward, _ in self.terms)

    @property
    def differentiable(self) -> bool:
        """Whether gradients reach the pictures."""
        return all(getattr(reward, "differentiable", False) for _, reward, _ in self.terms)

    @property
    def revision(self) -> str:
        """Of the rewards and their deviations."""
        return _revision([reward for _, reward, _ in self.terms], [(weight, d) for weight, _, d in self.terms])

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores (N,) in deviations."""
        parts = [weight / deviation * _asked(reward, images, prompts) for weight, reward, deviation in self.terms]
        return torch.stack(parts).sum(dim=0)


@dataclass(frozen=True)
class RankSum:
    """Σ weight·rank, ranks from 0 (worst) to 1 (best) among the candidates of one prompt; ties share their mean rank.

    Attributes:
        name: The specification.
        terms: Weight and reward.
    """

    name: str
    terms: tuple[tuple[float, Reward], ...]
    absolute = False

    @property
    def revision(self) -> str:
        """Of the rewards."""
        return _revision([reward for _, reward in self.terms], [weight for weight, _ in self.terms])

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores (N,)."""
        total = torch.zeros(len(prompts))
        for weight, reward in self.terms:
            scores = _asked(reward, images, prompts)
            for places in _by_prompt(prompts):
                total[places] += weight * ranks(scores[places])
        return total


@dataclass(frozen=True)
class CascadeReward:
    """Each stage judges the best candidates of the one before; who is left out ranks below all who went on.

    Attributes:
        name: The specification.
        stages: How many candidates of a prompt each judges (None: all that come), and by what.
    """

    name: str
    stages: tuple[tuple[int | None, Reward], ...]
    absolute = False

    @property
    def revision(self) -> str:
        """Of the rewards."""
        return _revision([reward for _, reward in self.stages], [count for count, _ in self.stages])

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores (N,): the last stage's for those that it judged, the order of the earlier stages below them."""
        check_prompts(images, prompts)
        scores = torch.zeros(len(prompts))
        alive = list(_by_prompt(prompts))
        left: list[list[int]] = [[] for _ in alive]  # of each prompt who is out, the best of the latest last
        for count, reward in self.stages:
            for places, out in zip(alive, left, strict=True):
                judged = len(places) if count is None else count
                out += reversed(places[judged:])
                del places[judged:]
            going = [place for places in alive for place in places]
            scores[going] = _asked(reward, take(images, going), [prompts[place] for place in going])
            for places in alive:
                places.sort(key=lambda place: -float(scores[place]))
        for places, out in zip(alive, left, strict=True):
            floor = float(scores[places].min())
            for below, place in enumerate(reversed(out), 1):
                scores[place] = floor - below
        return scores


@dataclass(frozen=True)
class Constrained:
    """A score for those that satisfy all bounds; the others rank below them, the less they break them the higher.

    Attributes:
        name: The specification.
        score: What counts among those that satisfy the bounds.
        bounds: Reward, sign and limit of each.
    """

    name: str
    score: Reward
    bounds: tuple[tuple[Reward, str, float], ...]

    @property
    def absolute(self) -> bool:
        """Whether scores can be compared over time."""
        return self.score.absolute and all(reward.absolute for reward, _, _ in self.bounds)

    @property
    def revision(self) -> str:
        """Of the rewards and their bounds."""
        return _revision([self.score, *(reward for reward, _, _ in self.bounds)], [bound[1:] for bound in self.bounds])

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores (N,), and -`REFUSED` or less for who breaks a bound."""
        scores = _asked(self.score, images, prompts)
        broken = torch.zeros(len(prompts))
        for reward, sign, limit in self.bounds:
            values = _asked(reward, images, prompts)
            broken += torch.where(COMPARE[sign](values, limit), 0.0, 1 + (values - limit).abs())
        return torch.where(broken > 0, -REFUSED * broken, scores)


def with_parts(reward: Reward, change: Callable[[Reward], Reward]) -> Reward:
    """The same combination of what `change` makes of each reward in it; of a single reward what it makes of that."""

    def changed(part: Reward) -> Reward:
        return with_parts(part, change)

    if isinstance(reward, CalibratedSum):
        return replace(reward, terms=tuple((weight, changed(part), d) for weight, part, d in reward.terms))
    if isinstance(reward, RankSum):
        return replace(reward, terms=tuple((weight, changed(part)) for weight, part in reward.terms))
    if isinstance(reward, CascadeReward):
        return replace(reward, stages=tuple((count, changed(part)) for count, part in reward.stages))
    if isinstance(reward, Constrained):
        bounds = tuple((changed(part), sign, limit) for part, sign, limit in reward.bounds)
        return replace(reward, score=changed(reward.score), bounds=bounds)
    return change(reward)


def check_prompt(reward: Reward, *prompts: str) -> None:
    """Raise `RewardError` if the reward, or one in the combination, cannot judge one of these; nothing is scored."""

    def asked(part: Reward) -> Reward:
        check = getattr(part, "check_prompt", None)
        if check is not None:
            for prompt in prompts:
                check(prompt)
        return part

    with_parts(reward, asked)


def build(
    node: Node, name: str, load: Callable[[Named], Reward], deviations: Mapping[str, float] | None = None
) -> Reward:
    """The reward that a specification describes.

    Args:
        node: From `rewards.grammar.parse`.
        name: What the whole is called.
        load: Makes one reward.
        deviations: Name of a reward → deviation within a prompt; a sum with a reward that is missing is one of ranks.
    """

    def made(part: Node) -> Reward:
        return build(part, name, load, deviations)

    if isinstance(node, Named):
        return load(node)
    if isinstance(node, Rank):
        terms = node.of.terms if isinstance(node.of, Sum) else ((1.0, node.of),)
        return RankSum(name, tuple((weight, made(part)) for weight, part in terms))
    if isinstance(node, Cascade):
        return CascadeReward(name, tuple((count, made(part)) for count, part in node.stages))
    if isinstance(node, Subject):
        return Constrained(name, made(node.score), tuple(_limit(bound, load) for bound in node.bounds))
    known = _deviations(node, deviations or {})
    if known is None:
        return build(Rank(node), name, load, deviations)
    return CalibratedSum(name, tuple((w, made(part), d) for (w, part), d in zip(node.terms, known, strict=True)))


def ranks(scores: Tensor) -> Tensor:
    """Ranks (N,) of scores (N,) from 0 (lowest) to 1 (highest); equal scores share the mean of their ranks."""
    _, place, equal = scores.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
    first = equal.cumsum(0) - equal  # rank of the first of each group of equals
    ranked: Tensor = (first + (equal - 1) / 2)[place] / max(1, len(scores) - 1)
    return ranked


def take(images: ImagesLike, places: Sequence[int]) -> ImagesLike:
    """Some of the pictures, in the form they are in."""
    if isinstance(images, Sequence):
        chosen: Sequence[Image.Image] = [images[place] for place in places]
        return chosen
    return images[list(places)]


def _asked(reward: Reward, images: ImagesLike, prompts: Sequence[str]) -> Scores:
    return check_scores(reward(images, prompts), reward.name, len(prompts)).cpu()


def _revision(parts: Sequence[Reward], settings: Sequence[object]) -> str:
    """Hash of the rewards' revisions and what they are combined by; empty if one of them has none."""
    revisions = [str(getattr(part, "revision", "")) for part in parts]
    named = [(part.name, revision) for part, revision in zip(parts, revisions, strict=True)]
    return hashlib.sha256(repr((named, settings)).encode()).hexdigest()[:12] if all(revisions) else ""


def _by_prompt(prompts: Sequence[str]) -> Iterator[list[int]]:
    """The places of each distinct prompt."""
    groups: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(place)
    yield from groups.values()


def _limit(bound: Bound, load: Callable[[Named], Reward]) -> tuple[Reward, str, float]:
    return load(bound.reward), bound.sign, bound.limit


def _deviations(node: Sum, known: Mapping[str, float]) -> list[float] | None:
    """The deviation of each term, 1 for ranks, whose scale whoever wrote them weighed; None if one is not known."""
    if len(node.terms) == 1:
        return [1.0]  # one reward, weighted: nothing to compare its scale with
    if any(isinstance(part, Named) and part.name not in known for _, part in node.terms):
        return None
    return [known[part.name] if isinstance(part, Named) else 1.0 for _, part in node.terms]
