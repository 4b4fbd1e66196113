"""Rankings of N candidates from the probabilities that one is preferred to another.

A head of general preference gives no score, only P with P[i, j] = probability that i is preferred to j, which need not
be transitive. Three rankings, all of which agree where P comes from scores:

    Copeland        number of candidates that i is preferred to, a tie counting one half
    Borda           mean of P[i, j] over the others
    Bradley-Terry   theta that maximises  sum over i, j of  P[i, j] log sigmoid(theta_i - theta_j)

Borda is the default, for three reasons: it has a meaning of its own (the probability to win against an opponent drawn
from the others); it weighs how clear each preference is, where Copeland counts 0.51 like 0.99 and so ties often; and it
assumes nothing, where the fit of Bradley-Terry assumes the scores that a cyclic P denies.

References: Copeland (1951); Bradley & Terry, Biometrika 39 (1952); Kendall & Babington Smith, Biometrika 31 (1940), for
the count of cyclic triples.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from rewards.base import ImagesLike
from rewards.errors import RewardError

_SLACK = 1e-2  # how far P[i, j] + P[j, i] may be from 1, which bfloat16 rounds
_CERTAIN = 1e-9  # Bradley-Terry has no finite answer to a certainty
_ROUNDS = 100


@runtime_checkable
class Compares(Protocol):
    """A reward without absolute scores, of which each picture keeps a vector that can be compared with any other's."""

    def heads(self, images: ImagesLike, prompts: Sequence[str]) -> Tensor:
        """What the head gives for N pictures and their prompts, (N, d) float32."""
        ...

    def chances(self, outputs: Tensor, others: Tensor | None = None) -> Tensor:
        """P[i, j], the probability that i is preferred to j of the others, (N, M) from (N, d) and (M, d)."""
        ...


@dataclass(frozen=True)
class Ranking:
    """Candidates in order.

    Attributes:
        method: "copeland", "borda" or "bradley-terry".
        scores: (N,) float64, higher is better, in the method's own unit.
        order: indices, best first; ties go to the lowest index.
        cycle: candidates each of which is preferred to the next, and the last to the first; empty without a cycle.
        cyclic_triples: how many of all triples of candidates are such cycles.
    """

    method: str
    scores: Tensor
    order: tuple[int, ...]
    cycle: tuple[int, ...]
    cyclic_triples: int

    def report(self, names: Sequence[object] | None = None) -> str:
        """One sentence: the order, or that there is none without contradiction; `names` stand for the indices."""
        known = range(len(self.order)) if names is None else names
        first = f"Candidate {self.order[0]}" if names is None else names[self.order[0]]
        best = f"{first} is first of {len(self.order)} by {self.method}"
        if not self.cycle:
            return f"{best}; the preferences have no cycle."
        path = " over ".join(str(known[candidate]) for candidate in (*self.cycle, self.cycle[0]))
        return (
            f"{best}, but the preferences are cyclic ({path}; {self.cyclic_triples} of "
            f"{math.comb(len(self.order), 3)} triples), so that another method may rank differently."
        )


class Accuracy(NamedTuple):
    """How often the chosen one of a pair was preferred, by the two countings in use.

    Attributes:
        with_ties: of all pairs; a tie counts as an error.
        without_ties: of the pairs that are no tie; NaN if all are.
    """

    with_ties: float
    without_ties: float


def rank(preferences: Tensor, method: str = "borda") -> Ranking:
    """The ranking by `method`.

    Args:
        preferences: (N, N) probabilities; the diagonal is not looked at.
        method: "copeland", "borda" or "bradley-terry".

    Raises:
        RewardError: another method, or no matrix of preferences.
    """
    if method not in METHODS:
        raise RewardError(f"Got method {method!r}; expected one of {', '.join(METHODS)}.")
    checked = _checked(preferences)
    scores = METHODS[method](checked)
    order = tuple(sorted(range(len(scores)), key=lambda candidate: (-scores[candidate].item(), candidate)))
    return Ranking(method, scores, order, find_cycle(checked), _cyclic_triples(checked))


def copeland(preferences: Tensor) -> Tensor:
    """How many others each candidate is preferred to, ties counting one half; (N,) float64 from 0 to N - 1."""
    p = _checked(preferences)
    return ((p > p.T).double() + 0.5 * (p == p.T).double()).sum(1) - 0.5


def borda(preferences: Tensor) -> Tensor:
    """Mean probability with which each candidate is preferred to another; (N,) float64 in [0, 1], for one alone 0.5."""
    p = _checked(preferences)
    return (p.sum(1) - 0.5) / (len(p) - 1) if len(p) > 1 else p[0]


def bradley_terry(preferences: Tensor) -> Tensor:
    """Scores whose differences explain the preferences best, mean 0; (N,) float64.

    Newton's method on a concave function, with steps halved until they help. A probability of 0 or 1 is taken as
    1e-9 short of it, since no finite scores explain a certainty.
    """
    p = _checked(preferences).clamp(_CERTAIN, 1 - _CERTAIN)
    theta = torch.zeros(len(p), dtype=torch.float64)
    for _ in range(_ROUNDS):
        expected = torch.sigmoid(theta[:, None] - theta)  # (N, N)
        slope = (p - expected).sum(1)
        information = expected * (1 - expected)
        curvature = information.sum(1).diag() - information + 1 / len(p)  # ones: the mean, which nothing depends on
        step = torch.linalg.solve(curvature, slope)
        theta, moved = _climb(p, theta, step)
        if moved < 1e-12:
            break
    return theta - theta.mean()


METHODS = {"copeland": copeland, "borda": borda, "bradley-terry": bradley_terry}


def find_cycle(preferences: Tensor) -> tuple[int, ...]:
    """A shortest cycle of candidates each preferred to the next, beginning at its lowest index; empty if there is none.

    Ties are no preference. Nearly always three candidates are enough, which a product of matrices finds; longer cycles
    are sought candidate by candidate, among those that may be in one.
    """
    p = _checked(preferences)
    beats = p > p.T
    core = _core(beats)
    triple = _triple(beats) if len(core) else ()
    if triple or not len(core):
        return triple
    beaten = [row.nonzero().flatten().tolist() for row in beats[core][:, core]]
    cycles = (_cycle_through(start, beaten) for start in range(len(core)))
    return tuple(int(core[index]) for index in min(filter(None, cycles), key=len))


def accuracy(probabilities: Tensor) -> Accuracy:
    """The two accuracies of P(chosen is preferred), (n,): a pair is right above one half, and a tie at one half.

    Published figures of LLaVA-Reward have probabilities rounded to bfloat16, which makes ties.

    Raises:
        RewardError: there are no pairs.
    """
    if not probabilities.numel():
        raise RewardError("Got no pairs; expected at least one to be accurate about.")
    right, ties = int((probabilities > 0.5).sum()), int((probabilities == 0.5).sum())
    decided = probabilities.numel() - ties
    return Accuracy(right / probabilities.numel(), right / decided if decided else math.nan)


def _checked(preferences: Tensor) -> Tensor:
    """`preferences` in float64 on the CPU, one half on the diagonal, both halves of the matrix telling the same."""
    if preferences.ndim != 2 or preferences.shape[0] != preferences.shape[1] or not len(preferences):
        raise RewardError(f"Got preferences of shape {tuple(preferences.shape)}; expected (N, N), N at least 1.")
    p = preferences.detach().to("cpu", torch.float64)
    sums = p + p.T
    sums.fill_diagonal_(1)
    if not (bool((sums - 1).abs().le(_SLACK).all()) and bool(((p >= 0) & (p <= 1)).all())):
        raise RewardError(
            "Got preferences that are no probabilities with P[i, j] + P[j, i] = 1; expected what "
            "`reward.preference` returns."
        )
    upper = p.triu(1)
    half = 0.5 * torch.eye(len(p), dtype=torch.float64)
    return upper + (1 - upper.T).tril(-1) + half


def _cyclic_triples(p: Tensor) -> int:
    beats = (p > p.T).double()
    return round((beats @ beats @ beats).trace().item() / 3)


def _core(beats: Tensor) -> Tensor:
    """Indices of what is left when candidates without a victory or without a defeat are left out again and again."""
    left = torch.ones(len(beats), dtype=torch.bool)
    victories, defeats = beats.sum(1), beats.sum(0)
    while True:
        out = left & ((victories == 0) | (defeats == 0))
        if not out.any():
            return left.nonzero().flatten()
        left = left & ~out
        victories, defeats = victories - beats[:, out].sum(1), defeats - beats[out].sum(0)


def _triple(beats: Tensor) -> tuple[int, ...]:
    """The first three candidates in a cycle, or none."""
    wins = beats.float()
    closed = (wins @ wins > 0) & beats.T  # [i, j]: i beats one that beats j, and j beats i
    starts = closed.any(1).nonzero().flatten()
    if not len(starts):
        return ()
    first = int(starts[0])
    links = beats & beats[:, first]  # [j, k]: j beats k, and k beats the first
    second = int((beats[first] & links.any(1)).nonzero()[0])
    return first, second, int(links[second].nonzero()[0])


def _cycle_through(start: int, beaten: list[list[int]]) -> tuple[int, ...]:
    """A shortest way from `start` back to it over higher indices, breadth first."""
    came_from: dict[int, int] = {}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        if here != start and start in beaten[here]:
            path = [here]
            while path[-1] != start:
                path.append(came_from[path[-1]])
            return tuple(reversed(path))
        for there in beaten[here]:
            if there > start and there not in came_from:
                came_from[there] = here
                queue.append(there)
    return ()


def _climb(p: Tensor, theta: Tensor, step: Tensor) -> tuple[Tensor, float]:
    """`theta` moved along `step` so far that the likelihood does not fall, and how far the farthest score moved."""
    before = _likelihood(p, theta)
    for halvings in range(40):
        moved = theta + step * 0.5**halvings
        if _likelihood(p, moved) >= before:
            return moved, float((moved - theta).abs().max())
    return theta, 0.0


def _likelihood(p: Tensor, theta: Tensor) -> float:
    return float((p * torch.nn.functional.logsigmoid(theta[:, None] - theta)).sum())
