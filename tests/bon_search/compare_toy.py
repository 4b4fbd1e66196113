"""A maker on a sampler whose law is known: what the tests of comparisons stand on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bon_search.compare import Comparison, Grid, Journal, make_grid
from bon_search.critic import PictureCritic
from bon_search.ledger import Cost, Ledger, MeteredSampler
from bon_search.plan import make_plan
from bon_search.run import Run
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.particles import Particles
from rewards.base import as_images
from tests.bon_search.toy import STEPS, Brightness, recipe

PROMPTS = tuple(f"a point, number {k}" for k in range(6))
SETTINGS = {"model": "toy", "steps": STEPS, "rewards": {"toy-brightness": ""}}


class Darkness:
    """A judge that likes the opposite of what `Brightness` likes."""

    name = "toy-darkness"
    absolute = True

    def __call__(self, images: Any, prompts: list[str]) -> Tensor:
        """One minus the mean pixel, (N,)."""
        return 1 - as_images(images).mean(dim=(1, 2, 3))


class Counting(GaussianMixtureSampler):
    """Counts each evaluation of the denoiser, particle by particle."""

    def __init__(self, eta: float) -> None:
        super().__init__([[0.0]], [1.0], [1.0], STEPS, eta=eta)
        self.nfe = 0

    def _step(self, particles: Particles, step: int) -> Particles:
        self.nfe += len(particles)
        return super()._step(particles, step)


class ToyMaker:
    """Runs searches on one Gaussian, whatever the prompt; the prompt's noise is its own.

    Attributes:
        nfe: Denoiser evaluations that were seen, the warm-up among them.
        started: Prompt, search and seed of each run that was iterated over.
    """

    def __init__(self, *, batch_invariant: bool = True) -> None:
        self.reward = Brightness()
        self.batch_invariant = batch_invariant
        self._samplers: list[Counting] = []

    @property
    def nfe(self) -> int:
        return sum(sampler.nfe for sampler in self._samplers)

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
        **call: Any,
    ) -> Run:
        """As `BestOfNPipeline.start`."""
        plan = make_plan(search, n=n, seed=seed, steps=steps or STEPS, options=options or {}, budget=budget)
        sampler, ledger = Counting(call.get("eta", 0.0)), Ledger(plan.budget)
        self._samplers.append(sampler)
        metered = MeteredSampler(sampler, ledger)
        critic = PictureCritic(metered, self.reward, prompt, ledger)
        own = recipe(plan.n, STEPS, search=search, seed=seed, prompt=prompt)
        return Run(plan.start(metered, critic, ledger, 8), critic, ledger, own, planned=plan.cost)


def grid(
    *searches: str, images: tuple[int, ...] = (2, 4, 8), prompts: tuple[str, ...] = PROMPTS, seeds: int = 1
) -> Grid:
    """A grid of the toy."""
    budgets = [count * STEPS for count in images]
    return make_grid(searches, ["toy-brightness"], prompts, budgets, seeds=seeds, steps=STEPS)


def compared(
    folder: Path, wanted: Grid, maker: ToyMaker | None = None, *, at_most: int | None = None
) -> tuple[Journal, ToyMaker]:
    """The journal of a comparison, taken up if there is one, and the maker that ran it; `at_most` so many new cells."""
    maker = maker or ToyMaker()
    with Journal(folder / "cells.jsonl", SETTINGS) as journal:
        for done, _ in enumerate(Comparison(wanted, {"toy-brightness": maker}, Darkness(), journal), 1):
            if done == at_most:
                break
    return journal, maker
