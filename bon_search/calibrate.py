"""Does pruning pay for this model and reward? Measure previews and costs, find the schedule, say so.

`measure` finishes candidates of a few prompts and scores each on the way. `calibrate` then replays pruned searches on
what was measured: it asks which schedule reaches the mean score of best-of-N (`target` = N) at the least cost. The
schedule is chosen on one half of the candidates and its cost is reported on the other, so it is not flattered.
Cost is counted in denoiser steps of one candidate; a look (decode and score) counts as many of them as it takes time.

>>> previews = measure([(sampler, critic)], n=64)
>>> found = calibrate(previews, target=16)
>>> print(found.verdict); found.save("schedule.json")
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING

import torch

from bon_search.errors import SearchError
from bon_search.pruning import Cut, Schedule
from bon_search.search import Critic, seeds
from pipelines.noise import derive

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from pipelines.sampler import Sampler

SHARES = (0.15, 0.25, 0.35, 0.45, 0.6, 0.75)
KEEPS = (0.25, 0.35, 0.5, 0.7)
DRAWS = 64  # replays of a search for each prompt
PAYS = 0.97  # a schedule that saves less than this is within the error of a calibration


@dataclass(frozen=True, eq=False)
class Previews:
    """Scores of candidates on their way.

    Attributes:
        scores: (P, M, L + 1) of P prompts, M candidates each, at L looks and at the end.
        shares: (L,) shares of the steps at which the looks took place, ascending.
        steps: K.
        look_cost: What a look at one candidate costs, in denoiser steps.
    """

    scores: Tensor
    shares: tuple[float, ...]
    steps: int
    look_cost: float

    def __post_init__(self) -> None:
        if self.scores.ndim != 3 or self.scores.shape[2] != len(self.shares) + 1:
            raise SearchError(
                f"Previews at {len(self.shares)} looks have the shape (prompts, candidates, {len(self.shares) + 1}), "
                f"but got {tuple(self.scores.shape)}."
            )
        if not bool(self.scores.isfinite().all()):
            raise SearchError("Some previews have a score that is not finite; leave those candidates out.")

    def half(self, which: int) -> Previews:
        """The candidates with even (0) or odd (1) numbers."""
        return Previews(self.scores[:, which::2], self.shares, self.steps, self.look_cost)

    @property
    def deviation(self) -> float:
        """Standard deviation of the final scores within a prompt, mean over prompts."""
        return float(self.scores[..., -1].double().std(dim=1).mean())

    @property
    def correlations(self) -> tuple[float, ...]:
        """(L,) Spearman correlation of previews with final scores within a prompt, mean over prompts."""
        ranks = self.scores.double().argsort(dim=1).argsort(dim=1).double()  # (P, M, L + 1)
        ranks = ranks - ranks.mean(dim=1, keepdim=True)
        both = (ranks[..., :-1] * ranks[..., -1:]).sum(dim=1)
        norms = ranks.square().sum(dim=1).sqrt()
        return tuple((both / (norms[:, :-1] * norms[:, -1:])).mean(dim=0).tolist())


@dataclass(frozen=True)
class Calibration:
    """A schedule and what speaks for it.

    Attributes:
        schedule: The cheapest found; without cuts if pruning does not pay.
        starts: Candidates to start so that the mean score is that of best-of-`target`.
        ratio: Cost of that relative to best-of-`target`, on candidates that the choice did not see.
        target: N of the best-of-N whose quality is to be reached.
        shares: Shares of the steps at which previews were looked at.
        correlations: Of these previews with the final scores (Spearman, within a prompt).
        look_cost: Of one look, in denoiser steps.
        steps: K.
        deviation: Standard deviation of the final scores within a prompt.
    """

    schedule: Schedule
    starts: int
    ratio: float
    target: int
    shares: tuple[float, ...]
    correlations: tuple[float, ...]
    look_cost: float
    steps: int
    deviation: float

    @property
    def verdict(self) -> str:
        """One sentence for the user."""
        table = ", ".join(f"{rho:.2f} at {at:.0%}" for at, rho in zip(self.shares, self.correlations, strict=True))
        if not self.schedule.cuts:
            return (
                f"Pruning does not pay here: previews correlate with final scores by {table}, and a look costs "
                f"{self.look_cost:.2g} denoiser steps; use best_of_n."
            )
        cuts = ", then ".join(f"{cut.keep:.0%} at {cut.at:.0%} of the steps" for cut in self.schedule.cuts)
        return (
            f"Start {self.starts} candidates and keep {cuts}: the quality of best-of-{self.target} at {self.ratio:.0%} "
            f"of its cost (previews correlate with final scores by {table})."
        )

    def save(self, path: str | Path) -> None:
        """Write the schedule file that `halving` reads, with all that was measured."""
        measured = {key: value for key, value in asdict(self).items() if key != "schedule"}
        self.schedule.save(path, verdict=self.verdict, **measured)


def measure(
    problems: Sequence[tuple[Sampler, Critic]], *, n: int = 64, shares: Sequence[float] = SHARES, seed: int = 0
) -> Previews:
    """Finish n candidates for each prompt and score them on the way; cost: P·n·K NFE and P·n·(L + 1) scores.

    Args:
        problems: For each prompt a sampler bound to it and its critic; all with the same steps and reward.
        n: Candidates for each prompt.
        shares: Shares of the steps at which to look; those that fall on one step count once.
        seed: Candidate k starts from seed + k.

    Raises:
        SearchError: No prompts, different numbers of steps, or a single step.
    """
    steps = {sampler.steps for sampler, _ in problems}
    if len(steps) != 1:
        raise SearchError(f"A calibration needs prompts with one number of steps, but got {sorted(steps) or 'none'}.")
    (count,) = steps
    places = sorted({min(max(1, round(share * count)), count - 1) for share in shares} - {0})
    if not places:
        raise SearchError(f"A run of {count} step has no look on the way, so nothing to calibrate; take more steps.")
    rows, moving, looking = [], 0.0, 0.0
    for sampler, critic in problems:
        particles, columns = sampler.init(seeds(seed, n)), []
        for place in [*places, count]:
            start = time.perf_counter()
            particles = sampler.advance(particles, to=place)
            middle = time.perf_counter()
            columns.append(critic(particles).detach().cpu().double())
            moving, looking = moving + middle - start, looking + time.perf_counter() - middle
        rows.append(torch.stack(columns, dim=1))  # (n, L + 1)
    seconds = moving / count, looking / (len(places) + 1)
    return Previews(torch.stack(rows), tuple(place / count for place in places), count, seconds[1] / seconds[0])


def calibrate(previews: Previews, *, target: int = 16, seed: int = 0) -> Calibration:
    """The cheapest schedule of one or two cuts that reaches the mean score of best-of-`target`.

    Args:
        previews: At least 4·target candidates for each prompt; more candidates and prompts make the result surer.
        target: N of best-of-N.
        seed: Of the replays.

    Raises:
        SearchError: Too few candidates.
    """
    if previews.scores.shape[1] < 4 * target:
        raise SearchError(
            f"To compare with best-of-{target}, a calibration needs {4 * target} candidates for each prompt, but it "
            f"has {previews.scores.shape[1]}; measure more, or choose a smaller target."
        )
    seen, unseen = Replays(previews.half(0), seed), Replays(previews.half(1), seed)
    chosen = min(_schedules(previews.shares), key=lambda schedule: seen.ratio(schedule, target)[0])
    ratio, starts = unseen.ratio(chosen, target)
    if not ratio < PAYS:
        chosen, ratio, starts = Schedule(), 1.0, target
    return Calibration(
        schedule=chosen,
        starts=starts,
        ratio=ratio,
        target=target,
        shares=previews.shares,
        correlations=previews.correlations,
        look_cost=previews.look_cost,
        steps=previews.steps,
        deviation=previews.deviation,
    )


def best_of_n_score(final: Tensor, n: int) -> float:
    """Mean over prompts of the expected highest of n final scores, drawn from (P, M) without replacement."""
    ordered = final.double().sort(dim=1).values
    m = ordered.shape[1]
    below = torch.arange(
        m, dtype=torch.float64
    )  # the k-th lowest is the best of n with probability C(k, n-1) / C(m, n)
    logs = torch.lgamma(below + 1) - torch.lgamma((below - n + 2).clamp(min=1)) - math.lgamma(n)
    total = math.lgamma(m + 1) - math.lgamma(n + 1) - math.lgamma(m - n + 1)
    chance = (logs - total).exp() * (below >= n - 1)
    return float((ordered * chance).sum(dim=1).mean())


class Replays:
    """Searches replayed on what was measured: `DRAWS` random orders of each prompt's candidates.

    The searches with n = 1, 2, … starts see the first n of an order, so schedules and numbers are compared on the same
    candidates.
    """

    def __init__(self, previews: Previews, seed: int = 0) -> None:
        prompts, m, _ = previews.scores.shape
        generator = torch.Generator().manual_seed(derive("replays", seed))
        order = torch.rand(prompts, DRAWS, m, generator=generator).argsort(dim=-1)  # (P, DRAWS, M)
        self.previews = previews
        self._scores = previews.scores[torch.arange(prompts)[:, None, None], order].float()  # (P, DRAWS, M, L + 1)
        self._places = {round(share * previews.steps): k for k, share in enumerate(previews.shares)}

    def score(self, schedule: Schedule, n: int) -> float:
        """Mean over prompts and replays of the best final score among the survivors of n candidates."""
        alive = self._scores[:, :, :n]
        for look in schedule.looks(n, self.previews.steps):
            if look.step not in self._places:
                raise SearchError(f"There are no previews at step {look.step}, only at {list(self._places)}.")
            chosen = alive[..., self._places[look.step]].topk(look.kept, dim=-1).indices
            alive = alive.gather(2, chosen[..., None].expand(-1, -1, -1, alive.shape[-1]))
        return float(alive[..., -1].max(dim=-1).values.double().mean())

    def cost(self, schedule: Schedule, n: int) -> float:
        """Of n starts, in denoiser steps."""
        spent = schedule.cost(n, self.previews.steps)
        return spent.nfe + self.previews.look_cost * spent.rewards

    def ratio(self, schedule: Schedule, target: int) -> tuple[float, int]:
        """Cost of the mean score of best-of-`target` relative to best-of-`target`, and how many starts that takes.

        Between two numbers of starts the cost is interpolated. Infinity where twice the target does not reach it.
        """
        wanted = best_of_n_score(self.previews.scores[..., -1], target)
        whole = self.cost(Schedule(), target)
        cost, score = 0.0, -math.inf
        for n in _starts(target, self.previews.scores.shape[1]):
            before = cost, score
            cost, score = self.cost(schedule, n), self.score(schedule, n)
            if score >= wanted:
                share = (wanted - before[1]) / (score - before[1]) if before[1] > -math.inf else 1.0
                return (before[0] + share * (cost - before[0])) / whole, n
        return math.inf, target


def _starts(target: int, most: int) -> Iterator[int]:
    """Numbers of starts to try, about 12 % apart."""
    n = max(2, target // 2)
    while n <= min(most, 2 * target):
        yield n
        n += max(1, round(0.12 * n))


def _schedules(shares: Sequence[float]) -> Iterator[Schedule]:
    """All with one or two cuts at the looks that were measured."""
    for count in (1, 2):
        for places in combinations(shares, count):
            for keeps in product(KEEPS, repeat=count):
                yield Schedule(tuple(Cut(at, keep) for at, keep in zip(places, keeps, strict=True)))
