"""A run gives out candidates as they are finished, and loses none when something fails."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bon_search.critic import Look, PictureCritic
from bon_search.ledger import Cost, Ledger, MeteredSampler
from bon_search.result import Candidate, ranked
from bon_search.run import Run, to_pil
from bon_search.search import Scored
from bon_search.searches.best_of_n import best_of_n
from bon_search.searches.draft import draft
from bon_search.searches.halving import halving
from pipelines import Particles
from rewards.errors import RewardError
from tests.bon_search.toy import STEPS, Brightness, recipe, standard_normal, toy_run


def test_cost_and_ranking_of_a_plain_run() -> None:
    run = toy_run(6, batch_size=4)
    made = list(run)
    assert [candidate.seed for candidate in made] == [0, 1, 2, 3, 4, 5]
    scores = [candidate.score for candidate in run.result.candidates]
    assert scores == sorted(scores, reverse=True)
    assert run.result.best.score == max(candidate.score for candidate in made)
    cost = run.result.cost
    assert (cost.nfe, cost.decodes, cost.rewards) == (6 * STEPS, 6, 6)  # each picture is decoded once


def test_a_budget_ends_the_run_with_what_is_finished() -> None:
    run = toy_run(6, batch_size=2, budget=Cost.at_most(nfe=4 * STEPS + 1))
    assert [candidate.seed for candidate in run] == [0, 1, 2, 3]
    assert run.result.cost.nfe == 4 * STEPS


def test_the_rest_of_a_budget_makes_part_of_a_batch() -> None:
    run = toy_run(16, batch_size=8, budget=Cost.at_most(nfe=13 * STEPS + 1))
    assert [candidate.seed for candidate in run] == list(range(13))
    assert run.result.cost.nfe == 13 * STEPS


@pytest.mark.parametrize("nfe", range(STEPS, 16 * STEPS, 3))
def test_a_pruned_search_that_is_cut_short_finishes_the_best_at_hand(nfe: int) -> None:
    ledger = Ledger(Cost.at_most(nfe=nfe))
    sampler = MeteredSampler(standard_normal(), ledger)
    critic = PictureCritic(sampler, Brightness(), "a point", ledger)
    looks: list[Scored] = []

    def seen() -> Iterator[Scored]:
        for look in halving(sampler, critic, n=16):
            looks.append(look)
            yield look

    run = Run(seen(), critic, ledger, recipe(16))
    finished = list(run)
    assert finished  # whatever one candidate costs, something is made of it
    assert ledger.spent.nfe <= nfe
    if looks and looks[-1].particles.step < STEPS:
        favourite = looks[-1].particles.streams[int(looks[-1].scores.argmax())]
        assert favourite in [candidate.seed for candidate in finished]


def test_whoever_watches_sees_what_the_reward_has_judged() -> None:
    ledger, looks = Ledger(), list[Look]()
    sampler = MeteredSampler(standard_normal(12), ledger)
    critic = PictureCritic(sampler, Brightness(), "a point", ledger)
    critic.on_look = looks.append
    finished = list(Run(draft(sampler, critic, n=10, draft_steps=3, seed=7), critic, ledger, recipe(10, 12)))
    assert [(look.step, look.steps, len(look.streams)) for look in looks] == [(3, 3, 10), (12, 12, 3)]
    assert ledger.spent.decodes == 13  # nothing is decoded for the onlooker
    assert [look.images.flatten(1).mean(dim=1).tolist() for look in looks] == [look.scores.tolist() for look in looks]
    assert looks[0].streams == tuple(range(7, 17))
    scores = dict(zip(looks[1].streams, looks[1].scores.tolist(), strict=True))
    assert scores == {candidate.seed: candidate.score for candidate in finished}


def test_only_the_candidate_asked_for_is_given_out() -> None:
    run = toy_run(6, batch_size=4)
    run.only = 3
    assert [candidate.seed for candidate in run] == [3]
    assert [candidate.seed for candidate in run.result.candidates] == [3]


def test_pictures_on_which_the_reward_failed_are_kept_without_a_score() -> None:
    run, seen = toy_run(6, batch_size=2, reward=Brightness(broken=2)), []
    with pytest.raises(RewardError, match=r"toy-brightness.*seed 2"):
        seen.extend(run)
    result = run.result
    assert [candidate.seed for candidate in result.candidates][:2] in ([0, 1], [1, 0])
    assert [candidate.seed for candidate in result.candidates][2:] == [2, 3]
    assert all(math.isnan(candidate.score) for candidate in result.candidates[2:])
    assert not math.isnan(result.best.score)


def test_ties_go_to_the_first_and_nan_never_wins() -> None:
    frames = (to_pil(torch.zeros(3, 1, 1)),)
    made = [Candidate(frames, seed, score) for seed, score in enumerate([math.nan, 1.0, 2.0, 2.0, -math.inf])]
    assert [candidate.seed for candidate in ranked(made)] == [2, 3, 1, 4, 0]


def test_rounding_to_8_bits_is_that_of_diffusers() -> None:
    from diffusers.image_processor import VaeImageProcessor

    image = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    (theirs,) = VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(image))
    assert to_pil(image[0]).tobytes() == theirs.tobytes()


class Film:
    """The toy as a video model: three frames, of which the middle one is the picture and the others are black."""

    def __init__(self) -> None:
        self._toy = standard_normal()
        self.steps = self._toy.steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._toy, name)

    def decode(self, particles: Particles) -> torch.Tensor:
        picture = self._toy.decode(particles)
        return torch.stack([torch.zeros_like(picture), picture, torch.zeros_like(picture)], dim=1)


def test_of_a_video_the_first_and_the_middle_frame_are_scored_and_all_are_kept() -> None:
    ledger, film = Ledger(), Film()
    critic = PictureCritic(film, Brightness(), "a point", ledger)
    particles = film.advance(film.init([0, 1, 2]), to=STEPS)
    assert critic(particles).tolist() == pytest.approx((film.decode(particles)[:, 1].mean(dim=(1, 2, 3)) / 2).tolist())
    assert ledger.spent.rewards == 6
    run = Run(best_of_n(film, critic, n=2), critic, ledger, recipe(2))
    assert [len(candidate.frames) for candidate in run] == [3, 3]


class Odd(Brightness):
    """NaN for one picture of a batch, by its brightness among the others."""

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        scores = super().__call__(images, prompts)
        return scores.where(scores < scores.max(), torch.nan)


def test_one_nan_leaves_its_neighbours_their_scores() -> None:
    run = toy_run(3, reward=Odd())
    with pytest.raises(RewardError):
        list(run)
    scores = [candidate.score for candidate in run.result.candidates]
    assert [math.isnan(score) for score in scores] == [False, False, True]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, TypeError, RuntimeError])
def test_whatever_ends_the_reward_the_pictures_stay(failure: type[BaseException]) -> None:
    class Fails(Brightness):
        def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
            raise failure

    run = toy_run(2, reward=Fails())
    with pytest.raises(KeyboardInterrupt if failure is KeyboardInterrupt else RewardError):
        list(run)
    assert len(run.result.candidates) == 2


@pytest.mark.parametrize(
    ("given", "sentence"),
    [([0.5, 0.5], "list as scores"), (torch.zeros(2, 1), r"shape \(2, 1\)"), (torch.zeros(1), r"shape \(1,\)")],
)
def test_scores_of_the_wrong_form_are_an_error_with_the_rewards_name(given: object, sentence: str) -> None:
    class Wrong(Brightness):
        def __call__(self, images: torch.Tensor, prompts: list[str]) -> Any:
            return given

    with pytest.raises(RewardError, match=f"toy-brightness.*{sentence}"):
        list(toy_run(2, reward=Wrong()))


def test_a_reward_that_runs_out_of_memory_says_what_helps() -> None:
    class Large(Brightness):
        def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RewardError, match="smaller --batch-size"):
        list(toy_run(2, reward=Large()))


def test_scores_carry_no_gradient() -> None:
    class Learns(Brightness):
        weight = torch.nn.Parameter(torch.ones(()))

        def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
            return super().__call__(images, prompts) * self.weight

    critic = PictureCritic(standard_normal(), Learns(), "a point", Ledger())
    particles = standard_normal().advance(standard_normal().init([0]), STEPS)
    assert not critic(particles).requires_grad
