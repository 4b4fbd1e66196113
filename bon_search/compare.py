"""Searches at equal cost: every cell of a grid is run under its budget, and its winner shown to a judge.

The reward that chooses is the target; the judge is another reward that took no part, since what a search gains by
fooling its target is no quality. Candidate k of a prompt starts from the same noise in every search, so differences
between searches are paired.

>>> grid = make_grid(["halving", "smc:eta=1"], ["llava-reward"], prompts, [80, 160, 320], steps=20)
>>> with Journal(Path("runs/comparison/cells.jsonl"), settings) as journal:
...     for cell in Comparison(grid, {"llava-reward": pipeline}, load_reward("shapes"), journal):
...         print(cell)

Plain best-of-N is nested: the run of n candidates begins with that of fewer. So a larger budget only adds to the
smaller one what it lacks, if a candidate's score depends neither on its company nor on its batch; otherwise it is run
anew.

References:
    Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps", 2025 (arXiv 2501.09732):
    gain by the target against gain by other verifiers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from bon_search.compare_grid import Contender, Grid, make_grid
from bon_search.compare_journal import Cell, Journal, Key
from bon_search.errors import SearchError
from bon_search.ledger import Cost
from bon_search.opinions import judged

if TYPE_CHECKING:
    from bon_search.result import Setting
    from bon_search.run import Run
    from rewards import Reward

__all__ = ["Cell", "Comparison", "Grid", "Journal", "Key", "Maker", "first_seed", "make_grid"]
__references__ = ("arXiv:2501.09732",)


class Maker(Protocol):
    """What runs a search: a `BestOfNPipeline`."""

    reward: Reward
    batch_invariant: bool

    def start(
        self,
        prompt: str,
        *,
        n: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        search: str = "best_of_n",
        options: Mapping[str, object] | None = None,
        budget: Cost | None = None,
        **call: Setting,
    ) -> Run:
        """A run that is ready to be iterated over."""
        ...


@dataclass(frozen=True)
class Comparison:
    """A grid to be measured: iterate over it for the cells that the journal lacks, which are entered as they come.

    Attributes:
        grid: What to compare.
        makers: For each reward of the grid what runs searches under it.
        judge: Scores winners; its time is not counted.
        journal: Holds the cells that are finished.
        on_nfe: Called with the number of NFE just done.

    Raises:
        SearchError: The judge only ranks, or a search refuses or finishes nothing within its budget.
        PipelineError: The model fails.
        RewardError: A reward fails.
    """

    grid: Grid
    makers: Mapping[str, Maker]
    judge: Reward
    journal: Journal
    on_nfe: Callable[[int], object] = lambda nfe: None

    def __post_init__(self) -> None:
        if not self.judge.absolute:
            raise SearchError(
                f"{self.judge.name} only ranks the pictures of one set (absolute = False), but a judge scores winners "
                "one by one; choose another."
            )

    def __iter__(self) -> Iterator[Cell]:
        from rewards.combine import check_prompt

        for scoring in (*(self.makers[name].reward for name in self.grid.rewards), self.judge):
            check_prompt(scoring, *self.grid.prompts)
        missing = [(key, contender) for key, contender in self.grid.cells() if key not in self.journal.cells]
        kinds = {(key.search, key.reward, key.budget): (key, contender) for key, contender in missing}
        for key, contender in kinds.values():
            self._start(key, contender)  # and drop it: what a search refuses is known before anything is spent
        for reward in {key.reward for key, _ in missing}:
            run = self.makers[reward].start(self.grid.prompts[0], n=1, steps=self.grid.steps, **self.grid.call)
            _drain(run)  # bears what only the first run of a process costs
        for key, contender in missing:
            cell = self._measured(key, contender)
            self.journal.add(cell)
            yield cell

    def _measured(self, key: Key, contender: Contender) -> Cell:
        before = self._before(key, contender)
        if before is not None and before.n == contender.starts(key.budget, self.grid.steps):
            return replace(before, key=key)
        run = self._start(key, contender, before)
        run.on_nfe = self.on_nfe
        cell = self._finished(run, key)
        return _joined(before, cell) if before else cell

    def _start(self, key: Key, contender: Contender, before: Cell | None = None) -> Run:
        """The run of a cell, or what it adds to the nested smaller one."""
        done, spent = (before.n, before.nfe) if before else (0, 0)
        n = contender.starts(key.budget, self.grid.steps) or 1
        return self.makers[key.reward].start(
            key.prompt,
            n=n - done,
            seed=first_seed(key.prompt, key.seed) + done,
            steps=self.grid.steps,
            search=contender.entry.name,
            options=contender.options,
            budget=Cost.at_most(nfe=key.budget - spent),
            **{**self.grid.call, **contender.call},
        )

    def _before(self, key: Key, contender: Contender) -> Cell | None:
        """The largest finished cell that this one's run begins with, if it is exactly that."""
        maker = self.makers[key.reward]
        if not (contender.nested and maker.batch_invariant and maker.reward.absolute):
            return None
        smaller = [replace(key, budget=budget) for budget in self.grid.budgets if budget < key.budget]
        begun = [self.journal.cells[key] for key in smaller if key in self.journal.cells]
        return begun[-1] if begun else None

    def _finished(self, run: Run, key: Key) -> Cell:
        result = _drain(run).result
        try:
            best = result.best
        except SearchError as error:
            raise SearchError(f"{key.search} with {key.budget} NFE on {key.prompt!r}: {error}") from error
        return Cell(
            key=key,
            n=result.recipe.n,
            finished=len(result.candidates),
            winner=best.seed,
            target=best.score,
            held_out=judged([best], key.prompt, self.judge)[0],
            nfe=result.cost.nfe,
            rewards=result.cost.rewards,
            decodes=result.cost.decodes,
            seconds=result.cost.seconds,
            evaluations_per_nfe=result.evaluations_per_nfe,
        )


def first_seed(prompt: str, seed: int) -> int:
    """The seed of candidate 0: a function of the prompt and the repetition, so a longer list of prompts changes none.

    Below 2^48, so that every program reads it exactly.
    """
    from pipelines.noise import derive

    return derive("compare", prompt, seed) % (1 << 48)


def _drain(run: Run) -> Run:
    for _ in run:
        pass
    return run


def _joined(before: Cell, more: Cell) -> Cell:
    """A nested run from its beginning and its rest; of equals the earlier candidate wins."""
    winner = before if before.target >= more.target else more
    return Cell(
        key=more.key,
        n=before.n + more.n,
        finished=before.finished + more.finished,
        winner=winner.winner,
        target=winner.target,
        held_out=winner.held_out,
        nfe=before.nfe + more.nfe,
        rewards=before.rewards + more.rewards,
        decodes=before.decodes + more.decodes,
        seconds=before.seconds + more.seconds,
        evaluations_per_nfe=more.evaluations_per_nfe,
    )
