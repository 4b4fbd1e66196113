"""Best-of-n by a reward, judged by people: what is lost against the choice that they would have made.

Of N rated candidates of a prompt n are drawn without replacement and the reward chooses one. With the candidates in the
reward's order, the k-th (from 0) is chosen with probability C(N − 1 − k, n − 1) / C(N, n), so the expected rating of
the choice needs no sampling. With the order of the ratings themselves it is the best that can be had.

    regret = rating of the best of n − rating of the chosen one, expected
    gain   = (rating of the chosen one − mean rating) / (rating of the best of n − mean rating)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rewards.evaluation.bootstrap import Floats, Interval
from rewards.evaluation.clusters import Clusters
from rewards.evaluation.judged import Judged
from rewards.evaluation.records import Data


@dataclass(frozen=True)
class Choice:
    """Best-of-n at one n.

    Attributes:
        n: candidates that a choice is made from.
        groups: prompts with so many candidates or more.
        chosen: mean rating of what the reward chooses.
        best: mean rating of the best of n.
        chance: mean rating of a candidate.
        regret: best less chosen.
        gain: (chosen − chance) / (best − chance): 1 is perfect, 0 is chance; NaN where nothing can be gained.
    """

    n: int
    groups: int
    chosen: float
    best: float
    chance: float
    regret: Interval
    gain: Interval


def choices(found: Judged, data: Data, *, seed: int = 0) -> tuple[Choice, ...]:
    """Best-of-n for n = 2, 4, 8, … up to the number of candidates that at least half of the prompts have."""
    groups: dict[str, list[int]] = {}
    for number, opinion in enumerate(data.opinions):
        if opinion.rating is not None:
            groups.setdefault(opinion.group, []).append(number)
    ratings = np.array([math.nan if each.rating is None else each.rating for each in data.opinions])
    tables = {name: (found.scores[members], ratings[members]) for name, members in groups.items() if len(members) > 1}
    return tuple(_choice(n, tables, seed) for n in _sizes([len(scores) for scores, _ in tables.values()]))


def expected_best(scores: Floats, ratings: Floats, n: int) -> float:
    """The expected rating of that candidate, among n of N drawn without replacement, that scores highest.

    Of equal scores the lower index is chosen.
    """
    order = np.argsort(-scores, kind="stable")
    return float((_odds(len(scores), n) * ratings[order]).sum())


def _odds(total: int, n: int) -> Floats:
    """Probability (N,) that each of N candidates, the best first, is the best of n drawn."""
    ways = [math.comb(total - 1 - k, n - 1) for k in range(total)]
    return np.array([way / math.comb(total, n) for way in ways])


def _sizes(counts: Sequence[int]) -> list[int]:
    most = sorted(counts)[len(counts) // 2] if counts else 0
    powers = [2**k for k in range(1, most.bit_length()) if 2**k < most]
    return [*powers, most] if most > 1 else []


def _choice(n: int, tables: dict[str, tuple[Floats, Floats]], seed: int) -> Choice:
    there = {name: table for name, table in tables.items() if len(table[0]) >= n}
    chosen = np.array([expected_best(scores, ratings, n) for scores, ratings in there.values()])
    best = np.array([expected_best(ratings, ratings, n) for _, ratings in there.values()])
    chance = np.array([ratings.mean() for _, ratings in there.values()])
    clusters = Clusters(list(there), seed=seed)
    means = float(chosen.mean()), float(best.mean()), float(chance.mean())
    return Choice(n, len(there), *means, clusters.mean(best - chosen), clusters.ratio(chosen - chance, best - chance))
