"""RBF, rollover budget forcing: a step ends as soon as a child improves on its parent, and what it saved rolls over.

A chain starts from the best of some noises. At each step children are proposed in batches and their x0 scored. The best
child of the first batch that holds one better than the parent is accepted; what is left of the step's quota goes to the
next step, and at last to the next chain. A step whose quota is used up accepts the best child it has seen.

Set right against the paper's code: the bar is the score of the parent, at the same estimate one step earlier, not the
best score ever seen, which an overrated early preview would hold out of reach for ever; chains are denoised to the end;
the last step of the last chain spends what remains; proposals come in batches. A proposal costs 2 NFE, one to make
the child and one for its own x0, but for the first of each step, which the parent's own look has made.

References:
    Kim et al., "Inference-Time Scaling for Flow Models via Stochastic Generation and Rollover Budget Forcing", 2025
    (arXiv 2503.19385).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bon_search.branching import START, check_stochastic, first_look, noise_ends
from bon_search.checks import check_absolute, check_count, check_share
from bon_search.ledger import Cost
from bon_search.search import Critic, Scored, seeds
from bon_search.weighted import checked_scores
from pipelines.particles import Particles

if TYPE_CHECKING:
    from pipelines.sampler import Sampler

__references__ = ("arXiv:2503.19385",)
__cost__ = "at most n·K NFE, about a score for every 2 NFE"
__branches__ = True


@dataclass(frozen=True)
class Proposal:
    """One child and what is known of it.

    Attributes:
        child: One particle.
        look: The child one step further on, with the x0 of the child's own state.
        score: Of the look.
    """

    child: Particles
    look: Particles
    score: float


def rbf(
    sampler: Sampler,
    critic: Critic,
    *,
    n: int,
    chains: int = 1,
    starts: float = 0.25,
    start: float = START,
    batch: int | None = None,
    seed: int = 0,
) -> Iterator[Scored]:
    """RBF, rollover budget forcing: a step ends once a child improves on its parent, the next inherits what it saved.

    Args:
        sampler: Stochastic.
        critic: Absolute, since a child is compared with its parent.
        n: Pictures' worth of work, n·K NFE in all.
        chains: Independent searches one after the other, each with its part of what is left, n at most; the paper has
            two, with many times the work.
        starts: Share of the work for choosing the first noises.
        start: Share of the steps after which these are chosen; the paper's 0 is for models whose first x0 tells.
        batch: Children proposed at a time; half of what the step can pay for when None, so that a step
            spends about its quota and has as much in reserve.
        seed: The first noises are those of seed, seed + 1, …

    Yields:
        Each batch of proposals, and among them the finished ones.

    Raises:
        SearchError: An argument out of range, a deterministic sampler, a score that is not finite.
    """
    check_stochastic(sampler, "rbf")
    check_absolute(critic, "rbf")
    check_count("chains", chains)
    check_count("batch", 1 if batch is None else batch)
    check_share("starts", starts, zero=True)
    seeds(seed, n)  # refuses n below 1
    first, chains = first_look(sampler.steps, start), min(chains, n)
    each = _noises(n, sampler.steps, chains, starts, first)
    wanted = seeds(seed, chains * each)
    noises = [wanted[chain * each : (chain + 1) * each] for chain in range(chains)]
    return _run(_Chain(sampler, critic, first, batch), n * sampler.steps, noises)


def cost(n: int, steps: int, chains: int = 1, starts: float = 0.25, start: float = START) -> Cost:
    """What `rbf` spends at most; of the NFE it leaves at most one, if fresh noise is drawn to the end."""
    first, chains = first_look(steps, start), min(chains, n)
    noises = _noises(n, steps, chains, starts, first)
    left = n * steps - chains * noises * first
    singles = chains * (steps - first)  # scores for one NFE, the first of each step; all others are for two
    times = chains * noises + singles + (left - singles) // 2
    return Cost(nfe=n * steps, rewards=times, decodes=times)


def _noises(n: int, steps: int, chains: int, starts: float, first: int) -> int:
    """How many first noises each chain chooses from, by their looks at step `first`; it must be able to finish."""
    budget = n * steps // chains
    return min(max(1, int(starts * budget / first)), (budget - steps + first) // first)


def _run(search: _Chain, left: int, noises: Sequence[range]) -> Iterator[Scored]:
    for chain, starts in enumerate(noises):
        one = replace(search, last=chain == len(noises) - 1)
        left -= yield from one.run(starts, left // (len(noises) - chain))


@dataclass(frozen=True)
class _Chain:
    """One chain of accepted children."""

    sampler: Sampler
    critic: Critic
    first: int
    batch: int | None
    last: bool = False

    def run(self, starts: Sequence[int], budget: int) -> Generator[Scored, None, int]:
        """Yield all proposals, return the NFE spent; at least one finished particle is among them."""
        noises = self.sampler.advance(self.sampler.init(starts), to=self.first - 1)
        parent = yield from self._propose(noises)
        steps, spent = self.sampler.steps, len(starts) * self.first
        quota = (budget - spent) // max(1, steps - self.first)
        for step in range(self.first, steps):
            left = budget - spent - quota * (steps - 1 - step)  # the quota, and what earlier steps saved
            forced = self.last and step == steps - 1
            parent, paid = yield from self._step(parent, left, forced)
            spent += paid
        return spent

    def _step(self, parent: Proposal, left: int, forced: bool) -> Generator[Scored, None, tuple[Proposal, int]]:
        """The accepted child and what it cost: the first batch's best that improves, or the best of all."""
        most = (left + 1) // 2 if parent.child.step < noise_ends(self.sampler) else 1
        width = most if forced else min(most, self.batch or -(-most // 2))
        tried: list[Proposal] = []
        for begin in range(0, most, width):
            end = min(begin + width, most)
            children = self._made(parent, parent.child.fork([0] * end)[begin:], begin == 0)
            tried.append((yield from self._propose(children)))
            if tried[-1].score > parent.score:
                break
        return max(tried, key=lambda proposal: proposal.score), 2 * end - 1

    def _made(self, parent: Proposal, brood: Particles, first: bool) -> Particles:
        """Children one step further on; the first of all is the parent's own look."""
        step = parent.look.step
        if not first:
            return self.sampler.advance(brood, to=step)
        if len(brood) == 1:
            return parent.look
        return Particles.cat([parent.look, self.sampler.advance(brood[1:], to=step)])

    def _propose(self, children: Particles) -> Generator[Scored, None, Proposal]:
        """Look at the children, show them, and return the best."""
        looks = self.sampler.advance(children, to=children.step + 1)
        scores = self.critic(looks)
        yield Scored(looks, scores)
        values = checked_scores(scores, looks)
        k = int(values.argmax())
        return Proposal(children[[k]], looks[[k]], float(values[k]))
