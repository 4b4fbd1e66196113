"""Pruning schedules: where to look at unfinished candidates, and what share of them goes on.

A schedule is written in shares, so that it suits any number of steps and of candidates. As a file it is JSON:

    {"cuts": [{"at": 0.35, "keep": 0.5}, {"at": 0.6, "keep": 0.5}]}

Whatever else such a file holds, as what `calibrate` measured, is for the reader.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from bon_search.errors import SearchError
from bon_search.ledger import Cost


@dataclass(frozen=True)
class Cut:
    """One look at which the worse part of the candidates ends.

    Attributes:
        at: Share of the steps, between 0 and 1.
        keep: Share of the candidates at hand that goes on, above 0 and up to 1.
    """

    at: float
    keep: float

    def __post_init__(self) -> None:
        if not (0 < self.at < 1 and 0 < self.keep <= 1):
            raise SearchError(
                f"A cut at {self.at} that keeps {self.keep} is none: `at` is a share of the steps between 0 and 1, "
                "`keep` the share of the candidates that goes on, above 0 and up to 1."
            )


@dataclass(frozen=True)
class Look:
    """A cut for a given number of steps and candidates.

    Attributes:
        step: After which denoiser step, 1 … K − 1.
        seen: Candidates that are scored.
        kept: Those that go on, at least 1.
    """

    step: int
    seen: int
    kept: int


@dataclass(frozen=True)
class Schedule:
    """Cuts in ascending order; none at all is plain best-of-N."""

    cuts: tuple[Cut, ...] = ()

    def __post_init__(self) -> None:
        places = [cut.at for cut in self.cuts]
        if any(later <= earlier for earlier, later in pairwise(places)):
            raise SearchError(f"The cuts of a schedule go forward, but these are at {places}; put them in order.")

    def looks(self, n: int, steps: int) -> tuple[Look, ...]:
        """The cuts for n candidates and K steps; a look that would end nobody is not taken.

        The number kept is rounded up. Of cuts that fall on one step only the last look counts, with the product of
        their shares.
        """
        taken: dict[int, Look] = {}
        for cut in self.cuts:
            step = min(max(1, round(cut.at * steps)), steps - 1)
            seen = taken[step].seen if step in taken else n
            kept = max(1, math.ceil(cut.keep * n - 1e-9))
            if kept < seen and step > 0:
                taken[step] = Look(step, seen, kept)
            n = kept
        return tuple(taken.values())

    def cost(self, n: int, steps: int) -> Cost:
        """The cost of n starts: (s_k − s_{k−1}) NFE for all alive, one score and one decode for each at a look."""
        nfe, scored, alive, done = 0, 0, n, 0
        for look in self.looks(n, steps):
            nfe, scored = nfe + alive * (look.step - done), scored + alive
            alive, done = look.kept, look.step
        return Cost(nfe=nfe + alive * (steps - done), rewards=scored + alive, decodes=scored + alive)

    def starts(self, budget: Cost, steps: int) -> int:
        """How many candidates to start so that NFE, rewards and decodes stay within the budget.

        Raises:
            SearchError: It does not suffice for one, or has no limit but time.
        """
        limits = (budget.nfe, budget.rewards, budget.decodes)
        if all(math.isinf(limit) for limit in limits):
            raise SearchError("This budget limits neither NFE nor rewards nor decodes; say how many to start.")

        def fits(n: int) -> bool:
            cost = self.cost(n, steps)
            return all(
                value <= limit for value, limit in zip((cost.nfe, cost.rewards, cost.decodes), limits, strict=True)
            )

        if not fits(1):
            raise SearchError(f"One candidate costs {self.cost(1, steps).nfe:g} NFE, beyond the budget; allow more.")
        n = 1
        while fits(n + 1):
            n += 1
        return n

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Read a schedule.

        Args:
            path: A file, or the name of a schedule that comes with the package (`published`).

        Raises:
            SearchError: It cannot be read, or holds no schedule.
        """
        try:
            file = PUBLISHED / f"{path}.json" if path in published() else Path(path)
            cuts = json.loads(file.read_text(encoding="utf-8"))["cuts"]
            return cls(tuple(Cut(float(cut["at"]), float(cut["keep"])) for cut in cuts))
        except OSError as error:
            raise SearchError(
                f"{path} cannot be read ({error.strerror}); give the file of a schedule, or one of {published()}."
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, SearchError):
                raise
            raise SearchError(
                f"{path} is not a pruning schedule ({error!r}); it is JSON such as "
                '{"cuts": [{"at": 0.35, "keep": 0.5}]}.'
            ) from error

    def save(self, path: str | Path, **measured: object) -> None:
        """Write a schedule file, with what else is worth knowing beside the cuts."""
        text = json.dumps({"cuts": [asdict(cut) for cut in self.cuts], **measured}, indent=2)
        Path(path).write_text(text + "\n", encoding="utf-8")


def published() -> list[str]:
    """The schedules that come with the package, `<model>_<reward>`; `calibrate-search` made them."""
    return sorted(file.stem for file in PUBLISHED.glob("*.json"))


PUBLISHED = Path(__file__).parent / "schedules"
DEFAULT = Schedule((Cut(0.35, 0.5), Cut(0.6, 0.5)))
