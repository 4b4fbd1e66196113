"""Draft, then refine: cheap drafts of many seeds are scored, and the best seeds are run in full.

A draft is the same model on the same noise with few steps, and with a small decoder if there is one: another sampler of
the same family. With a deterministic solver its composition is mostly that of the full run, so its score tells which
seeds deserve one. Nothing of a draft is re-used but the choice of seeds.

References:
    Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps", 2025 (arXiv 2501.09732):
    search with few steps, regenerate with many.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bon_search.errors import SearchError
from bon_search.ledger import Cost
from bon_search.search import Critic, Scored, seeds
from bon_search.searches.halving import best

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipelines.sampler import Sampler

__references__ = ("arXiv:2501.09732",)
__cost__ = "n·draft_steps + keep·n·K NFE, (1 + keep)·n scores"
DRAFT = 0.3  # share of the steps of a draft, unless told otherwise


def draft(
    sampler: Sampler, critic: Critic, *, n: int, draft_steps: int | None = None, keep: float = 0.25, seed: int = 0
) -> Iterator[Scored]:
    """Draft n candidates in few steps, and make the best `keep` of them again in full.

    Args:
        sampler: One with `with_steps`.
        critic: Judges drafts as well as finished candidates.
        n: Drafts; draft k starts from seed + k, as its full run does.
        draft_steps: Of a draft; 30 % of the steps when None.
        keep: Share of the drafts that is made again, above 0 and up to 1; rounded up.
        seed: As above.

    Yields:
        The finished candidates.

    Raises:
        SearchError: A number out of range, a draft as long as the full run, or a sampler that makes no drafts.
    """
    with_steps = getattr(sampler, "with_steps", None)
    if with_steps is None:
        raise SearchError(f"{type(sampler).__name__} makes no drafts; use halving or best_of_n.")
    shorter = with_steps(_draft_steps(sampler.steps, draft_steps))
    through = getattr(critic, "through", None)
    looks = draft_then_refine(
        sampler, critic, n=n, draft=shorter, draft_critic=through(shorter) if through else critic, keep=keep, seed=seed
    )
    return (look for look in looks if look.particles.step == sampler.steps)


def draft_cost(n: int, steps: int, draft_steps: int | None = None, keep: float = 0.25) -> Cost:
    """What `draft` spends, exactly."""
    return cost(n, steps, _draft_steps(steps, draft_steps), keep)


def _draft_steps(steps: int, draft_steps: int | None) -> int:
    return max(1, round(DRAFT * steps)) if draft_steps is None else draft_steps


def draft_then_refine(
    sampler: Sampler,
    critic: Critic,
    *,
    n: int,
    draft: Sampler,
    draft_critic: Critic,
    keep: float = 0.25,
    seed: int = 0,
) -> Iterator[Scored]:
    """Draft n seeds, finish the best `keep` of them in full; cost: `cost`.

    Args:
        sampler: The full run.
        critic: Judges finished candidates.
        n: Drafts; draft k starts from seed + k, as its full run does.
        draft: The same model with fewer steps. Its last step must not be mistaken for a finished candidate, so its
            number of steps must differ from the full one.
        draft_critic: The same reward through the draft's decoder.
        keep: Share of the drafts that is refined, above 0 and up to 1; rounded up.
        seed: As above.

    Yields:
        The drafts, then the finished candidates.

    Raises:
        SearchError: A number out of range, or a draft as long as the full run.
    """
    if draft.steps >= sampler.steps:
        raise SearchError(f"A draft of {draft.steps} steps is no cheaper than a run of {sampler.steps}; give it fewer.")
    return _run(sampler, critic, seeds(seed, n), draft, draft_critic, _refined(n, keep))


def cost(n: int, steps: int, draft_steps: int, keep: float = 0.25) -> Cost:
    """What `draft_then_refine` spends, exactly, if both samplers and critics enter it in one ledger."""
    refined = _refined(n, keep)
    times = n + refined
    return Cost(nfe=n * draft_steps + refined * steps, rewards=times, decodes=times)


def _run(
    sampler: Sampler, critic: Critic, starts: Sequence[int], draft: Sampler, draft_critic: Critic, refined: int
) -> Iterator[Scored]:
    drafts = draft.advance(draft.init(starts), to=draft.steps)
    scores = draft_critic(drafts)
    yield Scored(drafts, scores)
    particles = sampler.advance(sampler.init([starts[k] for k in best(scores, refined)]), to=sampler.steps)
    yield Scored(particles, critic(particles))


def _refined(n: int, keep: float) -> int:
    if not 0 < keep <= 1:
        raise SearchError(f"keep = {keep} refines nothing; it is a share of the drafts above 0 and up to 1.")
    return max(1, math.ceil(keep * n - 1e-9))
