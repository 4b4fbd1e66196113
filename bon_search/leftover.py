"""What becomes of the rest of a budget that ends a search: it finishes the best at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bon_search.ledger import Cost
from bon_search.search import Critic, Scored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bon_search.ledger import Ledger
    from pipelines import Particles, Sampler


def finish_best(
    sampler: Sampler, critic: Critic, ledger: Ledger, refused: Particles, shown: Scored | None
) -> Iterator[Scored]:
    """Finish, of the particles whose move was refused, the best that the rest of the budget pays for.

    Args:
        sampler: Metered by the ledger.
        critic: Metered by the ledger.
        ledger: What it keeps back for one candidate is free from here on.
        refused: Whom the move was for.
        shown: The last look of the search.
    """
    ledger.kept_back = Cost()
    particles = _at_hand(refused, shown, sampler.steps)
    affordable = ledger.affords(Cost(nfe=sampler.steps - particles.step, decodes=1, rewards=1))
    if affordable != 0:
        finished = sampler.advance(particles[:affordable], to=sampler.steps)
        yield Scored(finished, critic(finished))


def _at_hand(refused: Particles, shown: Scored | None, steps: int) -> Particles:
    """Whom to finish: those of the last look, best first, unless the refused ones are further on."""
    if shown is None or not refused.step <= shown.particles.step < steps:
        return refused
    scores = shown.scores.tolist()
    return shown.particles[sorted(range(len(scores)), key=lambda k: -scores[k])]
