"""Gradient searches through the one door: refusals with a cure, costs, budgets, gradients of whole looks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from bon_search.critic import PictureCritic
from bon_search.errors import SearchError
from bon_search.gradients import Gradients, look
from bon_search.ledger import Cost, Ledger, MeteredSampler
from bon_search.run import Run
from bon_search.search import Scored
from bon_search.searches import das_gradient, dno, psi, reno
from pipelines.diffusers_sampler import DiffusersSampler
from pipelines.particles import Particles
from rewards.pixels import load_pixels
from tests.bon_search.search_contract import FAMILIES, PROMPT, Recording, pipe_of
from tests.bon_search.toy import Brightness, recipe
from tests.pipelines import tiny

K = 6
Search = Callable[..., Iterator[Scored]]
SEARCHES: dict[str, tuple[Search, Callable[..., Cost], int, dict[str, Any]]] = {
    "reno": (reno.reno, reno.cost, 7, {}),
    "reno without ascent": (reno.reno, reno.cost, 3, {}),
    "dno": (dno.dno, dno.cost, 7, {"start": 2}),
    "das_gradient": (das_gradient.das_gradient, das_gradient.cost, 5, {"threshold": 1.0}),
    "das_gradient from the start": (das_gradient.das_gradient, das_gradient.cost, 5, {"start": 0.0, "batch_size": 2}),
    "psi": (psi.psi, psi.cost, 7, {}),
    "psi of known strength": (psi.psi, psi.cost, 5, {"moves": 3, "chains": 2, "temperature": 0.1}),
}


def smooth(images: Tensor, prompts: list[str]) -> Tensor:
    """Mean of a squashed pixel."""
    return torch.tanh(2 * images).mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class Smooth:
    """A differentiable reward of the toy's pictures."""

    name = "smooth"
    absolute = True
    differentiable = True

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        return smooth(images, prompts)


class Counting(Recording):
    """Counts, beside evaluations, those whose gradient is asked for."""

    backwards = 0

    def advance(self, particles: Particles, to: int) -> Particles:
        count = len(particles) * (to - particles.step)
        moved = super().advance(particles, to)
        if moved.latents.requires_grad:
            assert moved.x0 is not None
            moved.x0.register_hook(lambda slope: self._back(count))
        return moved

    def _back(self, count: int) -> None:
        self.backwards += count


def toy() -> Counting:
    return Counting([[0.0, 0.0], [1.0, 1.5]], [1.0, 0.5], [0.5, 0.5], K, eta=1.0)


def start(name: str, budget: Cost | None = None) -> tuple[Run, Ledger, Counting]:
    search, _, n, options = SEARCHES[name]
    sampler, ledger = toy(), Ledger(budget)
    metered = MeteredSampler(sampler, ledger)
    critic = PictureCritic(metered, Smooth(), "a point", ledger)
    return Run(search(metered, critic, n=n, seed=3, **options), critic, ledger, recipe(n, K)), ledger, sampler


@pytest.mark.parametrize("name", SEARCHES)
def test_the_formula_the_ledger_and_a_counting_denoiser_agree(name: str) -> None:
    run, ledger, sampler = start(name)
    finished = list(run)
    _, cost, n, options = SEARCHES[name]
    known = {key: value for key, value in options.items() if key not in ("threshold", "batch_size")}
    spent, planned = ledger.spent, cost(n, K, **known)
    assert (spent.nfe, spent.rewards, spent.decodes, spent.backwards) == (
        planned.nfe,
        planned.rewards,
        planned.decodes,
        planned.backwards,
    )
    assert sampler.nfe == spent.nfe
    assert (sampler.backwards > 0) == (planned.backwards > 0)
    assert run.result.best.score == max(candidate.score for candidate in finished)
    assert len({candidate.seed for candidate in finished}) == len(finished)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_budget_is_never_overshot_and_something_is_finished(name: str) -> None:
    for nfe in (0, 2, K, K + 1, 3 * K, 5 * K - 1, 6 * K, 7 * K):
        run, ledger, sampler = start(name, Cost.at_most(nfe=nfe))
        finished = list(run)
        assert sampler.nfe == ledger.spent.nfe <= nfe
        assert bool(finished) == (nfe >= K), nfe
        assert len({candidate.seed for candidate in finished}) == len(finished)
    run, ledger, _ = start(name, Cost.at_most(backwards=2 * K))
    assert list(run)
    assert ledger.spent.backwards <= 2 * K


@pytest.mark.parametrize("name", SEARCHES)
def test_candidates_with_a_seed_for_a_name_are_what_the_seed_alone_makes(name: str) -> None:
    """And the others repeat to the bit; so each can be made again from its recipe."""
    runs = [{c.seed: c.pixels for c in start(name)[0]} for _ in range(2)]
    assert runs[0] == runs[1]
    ledger = Ledger()
    sampler = MeteredSampler(toy(), ledger)
    critic = PictureCritic(sampler, Smooth(), "a point", ledger)
    for seed in runs[0]:
        if seed < 1000:
            ended = sampler.advance(sampler.init([seed]), to=K)
            (alone,) = Run(iter([Scored(ended, critic(ended))]), critic, ledger, recipe(1, K))
            assert alone.pixels == runs[0][seed]


@pytest.mark.parametrize("name", SEARCHES)
def test_a_reward_without_gradient_is_refused_with_the_cure_before_anything_is_spent(name: str) -> None:
    search, _, n, options = SEARCHES[name]
    ledger = Ledger()
    sampler = MeteredSampler(toy(), ledger)
    critic = PictureCritic(sampler, Brightness(), "a point", ledger)
    with pytest.raises(SearchError, match=r"toy-brightness gives no gradient .* zero_order"):
        search(sampler, critic, n=n, **options)
    assert ledger.spent.nfe == 0


def test_a_critic_that_cuts_the_gradient_is_told_so() -> None:
    with pytest.raises(SearchError, match="carry no gradient of the particles: the critic cuts it"):
        list(reno.reno(toy(), lambda particles: particles.latents[:, 0].detach(), n=6))
    with pytest.raises(SearchError, match="gradient of the score is NaN"):
        list(reno.reno(toy(), lambda particles: (particles.latents[:, 0] * 0).abs().sqrt(), n=6))


def test_options_out_of_range_are_refused_with_the_range() -> None:
    with pytest.raises(SearchError, match="start with at least 2"):
        reno.reno(toy(), lambda particles: particles.latents[:, 0], n=6, start=1)
    with pytest.raises(SearchError, match="learning_rate = 0 is out of range"):
        dno.dno(toy(), lambda particles: particles.latents[:, 0], n=6, learning_rate=0)
    with pytest.raises(SearchError, match=r"plausibility = -1\.0 is out of range"):
        dno.dno(toy(), lambda particles: particles.latents[:, 0], n=6, plausibility=-1.0)
    with pytest.raises(SearchError, match="tempering 'hot' is unknown"):
        das_gradient.das_gradient(toy(), lambda particles: particles.latents[:, 0], n=6, tempering="hot")
    still = Recording([[0.0]], [1.0], [1.0], K)
    for search in (das_gradient.das_gradient, psi.psi):
        with pytest.raises(SearchError, match="pushes the fresh noise"):
            search(still, lambda particles: particles.latents[:, 0], n=6)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_a_look_are_finite_differences_on_stock_pipelines(family: str) -> None:
    """Of a pixel reward of the estimate, through the decoder and one step; along the gradient, against its length."""
    call = {**tiny.CALL[family], "height": 32, "width": 32}
    sampler = DiffusersSampler(pipe_of(family), steps=2, prompt=PROMPT, eta=1.0, **call)
    ledger = Ledger()
    critic = PictureCritic(MeteredSampler(sampler, ledger), load_pixels("brightness"), PROMPT, ledger)
    begun = sampler.init([5, 1])
    _, scores, slopes = look(Gradients.of(critic.sampler, critic), begun, batch_size=1)
    reach = 0.05
    shift = reach * slopes / slopes.flatten(1).norm(dim=1).reshape(-1, *[1] * (slopes.ndim - 1))

    def score(sign: int) -> Tensor:
        latents = begun.latents + sign * shift
        return critic(sampler.advance(Particles(latents, 0, begun.streams), to=1))

    torch.testing.assert_close(scores, score(0), rtol=0, atol=1e-5)
    found = (score(1) - score(-1)) / (2 * reach)
    torch.testing.assert_close(found, slopes.flatten(1).norm(dim=1), rtol=0.03, atol=0)
    assert ledger.spent.backwards == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scale_of_the_first_noise_is_that_of_the_pipeline(family: str) -> None:
    """For all, noise divided by it has the length of standard normal noise."""
    call = {**tiny.CALL[family], "height": 64, "width": 64}
    sampler = DiffusersSampler(pipe_of(family), steps=2, prompt=PROMPT, **call)
    noise = sampler.init(range(8)).latents.float() / sampler.start_scale
    assert float(noise.square().mean()) == pytest.approx(1, abs=5 * (2 / noise.numel()) ** 0.5)


@pytest.mark.parametrize(
    ("name", "families"),
    [("reno", ("sdxl", "sana")), ("dno", ("sd", "sd3")), ("das_gradient", ("flux", "sdxl")), ("psi", ("sd3", "sana"))],
)
def test_every_family_is_searched_at_the_cost_of_the_formula(name: str, families: tuple[str, ...]) -> None:
    search, cost, _, _ = SEARCHES[name]
    options = {"temperature": 0.1} if name == "psi" else {}
    n = 5 if name in ("reno", "dno") else 2
    for family in families:
        call = {**tiny.CALL[family], "height": 32, "width": 32}
        sampler = DiffusersSampler(pipe_of(family), steps=3, prompt=PROMPT, eta=1.0, **call)
        critic = PictureCritic(sampler, load_pixels("sharpness"), PROMPT, Ledger())
        runs = [[look.particles for look in search(sampler, critic, n=n, **options)] for _ in range(2)]
        assert sampler.nfe == 2 * cost(n, 3, **options).nfe
        for one, other in zip(*runs, strict=True):
            assert one.latents.isfinite().all()
            assert one.latents.equal(other.latents)
            assert not one.latents.requires_grad
        ends = torch.cat([particles.latents for particles in runs[0] if particles.step == 3])
        assert len(ends.flatten(1).unique(dim=0)) == len(ends)
