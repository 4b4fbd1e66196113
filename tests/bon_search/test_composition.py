"""Searches that start from the survivors of others: noises, costs, shares of a budget, what is paid for once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bon_search.composition import shares
from bon_search.critic import PictureCritic
from bon_search.entry import Leg
from bon_search.errors import BudgetExceeded, SearchError
from bon_search.ledger import Cost, Ledger, MeteredSampler
from bon_search.listing import bibtex, listing
from bon_search.plan import make_plan
from bon_search.relay import Relay
from bon_search.run import Run
from bon_search.search import Critic, Scored
from bon_search.survivors import Continued, Remembering, survivors
from bon_search.table import load_search
from pipelines.particles import Particles
from tests.bon_search.branching_contract import ranking
from tests.bon_search.search_contract import STEPS as K
from tests.bon_search.search_contract import Recording, found, normal, outward
from tests.bon_search.test_gradients import Counting, Smooth
from tests.bon_search.toy import Brightness, recipe

BOTH = "halving then zero_order"
EXACT: dict[str, dict[str, Any]] = {
    BOTH: {},
    "best_of_n then zero_order": {"zero_order.start": 2, "split": 0.3},
    "best_of_n then halving": {},
    "halving then evolutionary": {},
    "zero_order then search_over_paths": {"paths": 3},
    "halving then reno": {"reno.step_size": 0.1},
    "best_of_n then psi": {"chains": 2},
    "best_of_n then das_gradient": {"strength": 2.0},
    "best_of_n then halving then zero_order": {"split": (0.4, 0.3)},
    "smc then zero_order": {"looks": 2},
    "svdd then dno": {},
}
AT_MOST: dict[str, dict[str, Any]] = {
    "pandora then zero_order": {"forecast": "flux_pick_score", "price": 1e-6},
    "dfs then code": {},
    "rbf then beam": {},
    "bfs then epsilon_greedy": {},
    "best_of_n_until then bfs": {"until": 0.2},
    "draft then zero_order": {"draft_steps": 5},
}


def mixture(steps: int) -> Counting:
    return Counting([[0.0, 0.0], [1.0, 1.5]], [1.0, 0.5], [0.5, 0.5], steps, eta=1.0)


def start(
    name: str,
    options: Mapping[str, Any],
    n: int | None,
    steps: int = 12,
    budget: Cost | None = None,
    stops: tuple[float, ...] = (),
) -> tuple[Run, Ledger, Counting]:
    plan = make_plan(name, n=n, seed=3, steps=steps, options=options, budget=budget)
    sampler, ledger = mixture(steps), Ledger(plan.budget)
    metered = MeteredSampler(sampler, ledger)
    critic = PictureCritic(metered, Smooth(), "a point", ledger)
    looks = replace(plan, stops=stops).start(metered, critic, ledger, 4)
    return Run(looks, critic, ledger, recipe(plan.n, steps), planned=plan.cost), ledger, sampler


def costs(cost: Cost) -> tuple[float, ...]:
    return cost.nfe, cost.rewards, cost.decodes, cost.backwards


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_the_formula_the_ledger_and_a_counting_denoiser_agree(name: str, n: int) -> None:
    run, ledger, sampler = start(name, EXACT[name], n)
    candidates = list(run)
    assert costs(ledger.spent) == costs(run.planned)
    assert sampler.nfe == ledger.spent.nfe <= n * 12
    assert len({candidate.seed for candidate in candidates}) == len(candidates) > 0


@pytest.mark.parametrize("name", AT_MOST)
def test_the_formula_bounds_what_depends_on_scores(name: str) -> None:
    run, ledger, sampler = start(name, AT_MOST[name], 16)
    assert list(run)
    spent = costs(ledger.spent)
    assert all(paid <= planned for paid, planned in zip(spent, costs(run.planned), strict=True))
    assert (
        (sampler.nfe if "draft" not in name else spent[0]) == spent[0] <= 16 * 12
    )  # drafts have a sampler of their own


@pytest.mark.parametrize("name", [*EXACT, *AT_MOST])
def test_a_budget_is_never_overshot_and_something_is_finished(name: str) -> None:
    options = {**EXACT, **AT_MOST}[name]
    for nfe in (12, 13, 25, 50, 95):
        run, ledger, sampler = start(name, options, None, budget=Cost.at_most(nfe=nfe))
        assert list(run), nfe
        assert sampler.nfe <= ledger.spent.nfe <= nfe


@pytest.mark.parametrize("name", ["halving then reno", "best_of_n then halving", "halving then smc"])
def test_the_survivors_are_the_starts(name: str) -> None:
    """The second search begins with the noises of the best, in their order, and then with seeds that are fresh."""
    sampler = Recording([[0.0] * 3], [1.0], [1.0], K, eta=0.5)
    first, second = load_search(name).legs(12, K, {})
    plan = make_plan(name, n=12, seed=7, steps=K, options={}, budget=None)
    looks = list(plan.start(MeteredSampler(sampler, ledger := Ledger()), outward, ledger, None))
    ended = next(look for look in looks if look.particles.step == K)
    begun = [before for before, _ in sampler.moves if before.step == 0][1]
    best = ended.particles[ended.scores.argsort(descending=True)].streams[: len(begun)]
    fresh = tuple(range(7 + first.n + len(best), 7 + first.n + len(begun)))
    assert begun.streams == best + fresh
    assert begun.latents.equal(sampler.init(begun.streams).latents)  # what their seeds alone give
    assert ended.scores.numel() > 1
    assert second.n >= len(begun)


def moved(step: int = 2) -> tuple[Continued, Recording, Scored]:
    """Three particles of which the second was copied on the way, at the end."""
    sampler = Recording([[0.0, 0.0]], [1.0], [1.0], K, eta=1.0)
    tracking = Continued(MeteredSampler(sampler, Ledger()))
    half = tracking.advance(tracking.init([5, 6]), to=step).fork([0, 1, 1])
    ended = tracking.advance(half, to=K)
    return tracking, sampler, Scored(ended, torch.tensor([1.0, 2.0, 3.0]))


def test_a_copy_stands_for_the_noise_of_its_ancestor_under_a_name_of_its_own() -> None:
    _, sampler, ended = moved()
    best, other = survivors((), ended, most=9)
    assert (float(best.score), float(other.score)) == (3, 1)  # the original scored less, and has the same noise
    assert (best.undisturbed, other.undisturbed) == (False, True)
    assert best.start.latents.equal(sampler.init([6]).latents)
    assert best.begun.streams != best.end.streams
    assert other.begun.streams == (5,)
    again = Continued(MeteredSampler(sampler, Ledger()), {40: best.begun, 41: other.begun}).init([42, 41, 40])
    assert again.streams == (42, 5, *best.begun.streams)
    assert again.latents.equal(sampler.init([42, 5, 6]).latents)


def test_thrown_back_to_the_beginning_a_particle_has_a_noise_of_its_own() -> None:
    tracking, _, _ = moved()
    thrown = tracking.renoise(tracking.advance(tracking.init([5]), to=3), to=0, seed=1)
    end = tracking.advance(thrown, to=K)
    assert end.start is not None
    assert end.start.latents.equal(thrown.latents)


def test_finished_candidates_are_neither_moved_nor_judged_again() -> None:
    tracking, sampler, ended = moved()
    known = {5: ended.particles[[0]]}
    ledger = Ledger()
    continued = Continued(MeteredSampler(sampler, ledger), {40: tracking.init([5])}, known)
    judged: list[tuple[int, ...]] = []

    def judge(particles: Particles) -> Tensor:
        judged.append(particles.streams)
        return outward(particles)

    critic = Remembering(judge, {5: torch.tensor(7.0, dtype=torch.float64)})
    whole = continued.advance(continued.init([41, 40, 42]), to=K)
    scores = critic(whole)
    assert ledger.spent.nfe == 2 * K
    assert judged == [(41, 42)]
    assert whole.latents[1].equal(ended.particles.latents[0])
    assert scores[[0, 2]].equal(outward(whole[[0, 2]]))
    assert float(scores[1]) == 7
    new = critic.new(Scored(whole, scores))
    assert new is not None
    assert new.particles.streams == (41, 42)
    assert critic(known[5]).tolist() == [7]
    assert critic.new(Scored(known[5], scores)) is None


@dataclass(frozen=True)
class Listening:
    """A search that notes what it is told, and finishes its candidates."""

    told: list[Any]

    def __call__(self, sampler: Any, critic: Critic, *, n: int, seed: int, **settings: Any) -> Any:
        self.told.append(settings.get("deviation"))
        ended = sampler.advance(sampler.init(range(seed, seed + n)), to=K)
        yield Scored(ended, critic(ended))


@pytest.mark.parametrize(("flat", "expected"), [(False, None), (True, float("inf"))])
def test_the_deviation_of_the_first_search_is_handed_on(flat: bool, expected: float | None) -> None:
    first, second = Listening([]), Listening([])
    legs = [Leg(first, "first", 5, {}, Cost()), Leg(second, "second", 2, {}, Cost(), measured=True)]
    critic: Critic = (lambda particles: 0 * outward(particles)) if flat else outward
    looks = list(Relay(legs, MeteredSampler(normal(2), ledger := Ledger()), critic, ledger, seed=0).run())
    assert first.told == [None]
    (told,) = second.told
    assert told == (expected or pytest.approx(float(looks[0].scores.std())))


def test_an_ascent_begins_at_the_best_survivor_and_climbs() -> None:
    """Four first ones, which tell it the deviation where nobody else does, would be all that 8 candidates pay for."""
    _, climb = load_search("halving then reno").legs(8, K, {})
    assert (climb.n, climb.options["start"], climb.cost.backwards) == (4, 1, 3 * K)
    _, climb = load_search("halving then reno").legs(8, K, {"reno.start": 2})
    assert climb.options["start"] == 2


@pytest.mark.parametrize(("split", "share"), [(None, 0.5), (0.25, 0.25)])
def test_a_budget_of_time_is_divided_by_the_clock_and_can_be_repeated(
    split: float | None, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {} if split is None else {"split": split}
    seconds = 400
    samplers: list[Counting] = []  # on whose clock an NFE takes a second, and nothing else takes time
    monkeypatch.setattr("bon_search.ledger.time.perf_counter", lambda: float(sum(one.nfe for one in samplers)))
    run, ledger, sampler = start(BOTH, options, None, budget=Cost.at_most(seconds=seconds))
    samplers.append(sampler)
    candidates = list(run)
    (handed_over,) = ledger.handovers
    assert seconds * share - 12 < handed_over <= seconds * share
    assert seconds - 12 < ledger.spent.nfe <= seconds
    monkeypatch.undo()
    again, other, _ = start(BOTH, options, None, budget=Cost.at_most(seconds=seconds), stops=ledger.handovers)
    other.budget = Cost.at_most(nfe=ledger.spent.nfe)
    assert [(c.seed, c.pixels) for c in again] == [(c.seed, c.pixels) for c in candidates]


def test_shares_of_the_work_are_kept() -> None:
    for split, share in (({}, 0.5), ({"split": 0.2}, 0.2), ({"split": 0.8}, 0.8)):
        first, second = load_search("best_of_n then zero_order").legs(20, K, split)
        assert first.cost.nfe == 20 * K * share
        assert first.cost.nfe + second.cost.nfe == 20 * K
        assert second.n - second.known == pytest.approx(20 * (1 - share))
    assert shares(None, 4) == (0.25, 0.5, 0.75, 1.0)
    assert shares((0.5, 0.2), 3) == pytest.approx((0.5, 0.7, 1.0))


@pytest.mark.parametrize("split", [0, 1.0, -0.5, (0.5, 0.2), "half", (0.5, None)])
def test_a_split_that_divides_nothing_is_refused(split: object) -> None:
    with pytest.raises(SearchError, match=r"does not divide a budget between 2 searches; give .* such as 0\.5"):
        shares(split, 2)


@pytest.mark.parametrize("dimension", [16, 256])
def test_climbing_from_survivors_beats_choosing_at_equal_nfe(dimension: int) -> None:
    """In deviations of the reward: best-of-48 is 2.2 of them, and twice its cost adds 0.25, but a climb goes on."""

    def best(name: str, seed: int) -> float:
        plan = make_plan(name, n=None, seed=seed, steps=K, options={}, budget=Cost.at_most(nfe=48 * K))
        sampler, ledger = normal(dimension), Ledger(plan.budget)
        score = found(plan.start(MeteredSampler(sampler, ledger), outward, ledger, None))
        assert sampler.nfe <= 48 * K
        return score

    names = ("best_of_n", "halving", BOTH)
    plain, pruned, both = torch.tensor([[best(name, seed) for seed in range(0, 60_000, 10_000)] for name in names])
    assert (both - plain).mean() > 0.7
    assert (both - pruned).mean() > 0.5


def test_options_belong_to_a_part() -> None:
    entry = load_search(" halving   then zero_order ")
    assert entry.name == BOTH
    parsed = entry.parse(["neighbours=2", "zero-order.step-size=0.3", "split=0.25"])
    assert parsed == {"zero_order.neighbours": 2, "zero_order.step_size": 0.3, "split": 0.25}
    assert load_search("best_of_n then smc then dno").parse(["split=0.5,0.2"]) == {"split": (0.5, 0.2)}


@pytest.mark.parametrize(
    ("name", "setting", "sentence"),
    [
        (BOTH, "neighbors=2", "no option 'neighbors': did you mean 'zero_order.neighbours'"),
        (BOTH, "halving.neighbours=2", "no option 'halving.neighbours'"),
        ("reno then zero_order", "start=2", "reno and zero_order each have an option 'start'; say whose"),
        ("halving then pandora", "split=0.5", r"needs its option 'pandora\.forecast'"),
        ("halving then zero_oder", "", "Unknown search 'zero_oder': did you mean 'zero_order'"),
        ("halving then halving", "", "runs halving twice"),
        ("then halving", "", "lacks a search before or after its 'then'"),
    ],
)
def test_what_makes_no_composition_is_refused_with_a_hint(name: str, setting: str, sentence: str) -> None:
    with pytest.raises(SearchError, match=sentence):
        load_search(name).parse([setting] if setting else [])


def test_what_a_later_search_refuses_is_known_before_anything_is_spent() -> None:
    for name, reward, sentence in (
        ("halving then reno", Brightness(), "gives no gradient"),
        ("halving then das_gradient", Smooth(), "pushes the fresh noise"),
    ):
        plan = make_plan(name, n=16, seed=0, steps=K, options={}, budget=None)
        metered = MeteredSampler(normal(2), ledger := Ledger())
        with pytest.raises(SearchError, match=sentence):
            plan.start(metered, PictureCritic(metered, reward, "a point", ledger), ledger, None)
        assert ledger.spent.nfe == 0


def test_seeds_at_the_upper_end_are_refused_before_anything_is_spent() -> None:
    """The first search has seeds enough, but the second, which goes on from there, has not."""
    plan = make_plan("best_of_n then zero_order", n=12, seed=2**63 - 12, steps=K, options={}, budget=None)
    with pytest.raises(SearchError, match="seed"):
        plan.start(MeteredSampler(normal(2), ledger := Ledger()), outward, ledger, None)
    assert ledger.spent.nfe == 0


def test_a_refused_draft_of_a_survivor_is_finished_from_the_survivors_noise() -> None:
    """Whose name need not be the seed that its noise comes from."""
    sampler = normal(2)
    begun = replace(sampler.init([6]), streams=(99,))
    continued = Continued(MeteredSampler(sampler, Ledger(Cost.at_most(nfe=K))), {40: begun})
    draft = continued.with_steps(2)
    with pytest.raises(BudgetExceeded) as refused:
        draft.advance(draft.init([41, 40]), to=2)
    left = refused.value.particles
    assert left is not None
    assert left.streams == (41, 99)
    assert left.latents.equal(sampler.init([41, 6]).latents)


def test_one_candidate_of_the_first_search_is_made_whatever_it_takes() -> None:
    """A draft of 2 of 8 steps, and the full run."""
    entry = load_search("draft then zero_order")
    first, second = entry.legs(1, 8, {})
    assert (first.n, first.cost.nfe, second.n) == (1, 10, 0)
    assert "or one candidate of the first" in entry.formula


def test_no_candidate_at_all_is_refused() -> None:
    with pytest.raises(SearchError, match="n = 0 is out of range"):
        load_search(BOTH).legs(0, K, {})


def test_scores_that_only_rank_are_refused() -> None:
    plan = make_plan("halving then best_of_n", n=16, seed=0, steps=K, options={}, budget=None)
    with pytest.raises(SearchError, match="halving then best_of_n compares scores of different rounds"):
        plan.start(MeteredSampler(normal(2), ledger := Ledger()), ranking(outward), ledger, None)


def test_it_is_listed_and_cited_as_its_parts_are() -> None:
    entry = load_search("best_of_n then psi")
    assert entry.references == ("arXiv:2501.09732", "arXiv:2506.01320", "arXiv:2501.05803")
    assert (entry.branches, load_search(BOTH).branches) == (True, False)
    assert bibtex("best_of_n then psi").count("@misc{") == 3
    assert "best_of_n, then from its survivors psi." in listing("best_of_n then psi")
    assert "halving then zero_order" in listing()
