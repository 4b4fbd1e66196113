"""What a run gives back: candidates, best first, with the recipe that makes each of them again."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bon_search.errors import NothingFinished, SearchError
from bon_search.ledger import Cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from bon_search.opinions import Opinion

Setting = str | int | float | bool | None


@dataclass(frozen=True)
class Candidate:
    """One finished picture.

    Attributes:
        frames: The picture as it is saved, 8 bits a channel; all frames of a video.
        seed: Seed of its initial noise.
        score: What the reward says of it; NaN when the reward failed on it, and then it ranks last.
    """

    frames: tuple[Image.Image, ...]
    seed: int
    score: float

    @property
    def image(self) -> Image.Image:
        """The picture; the first frame of a video."""
        return self.frames[0]

    @cached_property
    def pixels(self) -> str:
        """SHA-256 of all pixels, row by row: equal if and only if the picture is the same to the bit."""
        return hashlib.sha256(b"".join(frame.tobytes() for frame in self.frames)).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """What made the candidates of a run, and makes them again from the same files.

    A reward that was given as an object is recorded by its name alone, an argument that is no number or text by its
    type.

    Attributes:
        prompt: The text.
        model: Name, folder or hub id, as given.
        model_revision: Content hash or commit of the weights.
        pipeline: Class of the diffusers pipeline.
        scheduler: Class of its scheduler.
        scheduler_config: Its settings.
        reward: Specification of the reward.
        reward_revision: Content hash or commit of its weights; empty if it has none.
        steps: Denoising steps K.
        call: Further arguments of the pipeline's call (guidance_scale, height, …).
        search: Name of the search.
        n: Candidates that it started.
        seed: Seed of the run.
        batch_invariant: Whether a candidate's numbers are independent of its company, bit for bit.
        lora: LoRA weights on top of the model, if any.
        dtype: Number format of the weights.
        device: Where the run took place.
        versions: Versions of the libraries that took part.
        options: What was set of the search.
        budget: Limits of the run: nfe, rewards, decodes or seconds.
        preview_decoder: Small decoder of unfinished candidates, if any.
        endless: Whether the search was repeated with fresh seeds until the budget ended it.
        references: Papers of the search, such as "arXiv:2501.09732".
    """

    prompt: str
    model: str
    model_revision: str
    pipeline: str
    scheduler: str
    reward: str
    reward_revision: str
    steps: int
    call: dict[str, Setting]
    search: str
    n: int
    seed: int
    batch_invariant: bool
    lora: str | None
    dtype: str
    device: str
    versions: dict[str, str] = field(default_factory=dict)
    scheduler_config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    budget: dict[str, float] = field(default_factory=dict)
    preview_decoder: str | None = None
    endless: bool = False
    references: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SearchResult:
    """Ranked candidates of one prompt, with cost and recipe.

    Attributes:
        candidates: Best first; ties in the order in which they were made.
        cost: What was spent.
        recipe: How to make them again.
        evaluations_per_nfe: Network evaluations that one NFE took: 2 where guidance doubles them.
        report: That the preferences behind the ranking are cyclic, in one sentence; empty if they are not, and for a
            reward that scores each candidate for itself.
        opinions: What held-out rewards say of the candidates (`bon_search.opinions`).
        handovers: Of several searches, NFE spent when each but the last ended.
    """

    candidates: tuple[Candidate, ...]
    cost: Cost
    recipe: Recipe
    evaluations_per_nfe: float = 1.0
    report: str = ""
    opinions: tuple[Opinion, ...] = ()
    handovers: tuple[float, ...] = ()

    @property
    def best(self) -> Candidate:
        """The candidate that the reward prefers.

        Raises:
            SearchError: Nothing was finished, or nothing has a score.
        """
        if self.candidates and math.isnan(self.candidates[0].score):
            raise SearchError("No candidate has a score; look at the pictures, or choose another reward.")
        if not self.candidates:
            raise NothingFinished
        return self.candidates[0]

    def save(self, folder: str | Path) -> Path:
        """Write best.png, candidates/, contact-sheet.png and result.json; returns the path of best.png.

        Raises:
            SearchError: The folder already holds a run, or cannot be written; or there is no best candidate.
        """
        from bon_search.files import RunFolder

        best = self.best
        target = RunFolder.create(Path(folder))
        for candidate in self.candidates:
            target.add(candidate, self.recipe)
        return target.finish(self) or target.picture(best)


def ranked(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Best first; ties keep their order, a candidate without a score comes last."""
    return tuple(sorted(candidates, key=lambda c: (math.isnan(c.score), -c.score if not math.isnan(c.score) else 0.0)))
