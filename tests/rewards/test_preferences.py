"""Rankings of preferences: tournaments worked out by hand, and matrices that come from scores."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.errors import RewardError
from rewards.llava.heads import win_probabilities
from rewards.preferences import METHODS, accuracy, borda, bradley_terry, copeland, find_cycle, rank

scores = st.lists(st.integers(-40, 40), min_size=1, max_size=8).map(lambda xs: torch.tensor(xs).double() / 10)
vectors = st.tuples(st.integers(1, 7), st.sampled_from([2, 4, 6]), st.integers(0, 2**32 - 1)).map(
    lambda drawn: torch.randn(drawn[0], drawn[1], generator=torch.Generator().manual_seed(drawn[2]))
)

ROCK_PAPER_SCISSORS = torch.tensor([[0.5, 0.3, 0.8], [0.7, 0.5, 0.4], [0.2, 0.6, 0.5]])
LEADER_ABOVE_A_CYCLE = torch.tensor(
    [[0.5, 0.6, 0.3, 0.4], [0.4, 0.5, 0.9, 0.4], [0.7, 0.1, 0.5, 0.4], [0.6, 0.6, 0.6, 0.5]]
)


def test_a_cycle_by_hand() -> None:
    """0 over 2 over 1 over 0: Copeland cannot tell them apart, Borda can."""
    assert copeland(ROCK_PAPER_SCISSORS).tolist() == [1, 1, 1]
    assert borda(ROCK_PAPER_SCISSORS).tolist() == pytest.approx([0.55, 0.55, 0.4])
    ranking = rank(ROCK_PAPER_SCISSORS, "copeland")
    assert ranking.order == (0, 1, 2)
    assert ranking.cycle == (0, 2, 1)
    assert ranking.cyclic_triples == 1
    assert "cyclic (0 over 2 over 1 over 0; 1 of 1 triples)" in ranking.report()


def test_a_winner_above_a_cycle_by_hand() -> None:
    assert copeland(LEADER_ABOVE_A_CYCLE).tolist() == [1, 1, 1, 3]
    assert borda(LEADER_ABOVE_A_CYCLE).tolist() == pytest.approx([1.3 / 3, 1.7 / 3, 1.2 / 3, 1.8 / 3])
    ranking = rank(LEADER_ABOVE_A_CYCLE)
    assert ranking.order == (3, 1, 0, 2)
    assert ranking.cycle == (0, 1, 2)
    assert ranking.cyclic_triples == 1


def test_a_longer_cycle_is_found_where_ties_hide_the_short_ones() -> None:
    """0 over 1 over 2 over 3 over 0, and ties across."""
    p = torch.full((4, 4), 0.5)
    for i in range(4):
        p[i, (i + 1) % 4], p[(i + 1) % 4, i] = 0.75, 0.25
    ranking = rank(p, "copeland")
    assert ranking.scores.tolist() == [1.5] * 4
    assert ranking.cycle == (0, 1, 2, 3)
    assert ranking.cyclic_triples == 0


def test_ties_go_to_the_lowest_index_and_one_alone_is_first() -> None:
    assert rank(torch.full((3, 3), 0.5), "bradley-terry").order == (0, 1, 2)
    for method in METHODS:
        alone = rank(torch.tensor([[0.5]]), method)
        assert alone.order == (0,)
        assert "no cycle" in alone.report()


@settings(deadline=None)
@given(scores)
def test_bradley_terry_gives_back_the_scores_behind_the_preferences(theta: torch.Tensor) -> None:
    p = (theta[:, None] - theta).sigmoid()
    torch.testing.assert_close(bradley_terry(p), theta - theta.mean(), atol=1e-6, rtol=1e-6)


@settings(deadline=None)
@given(scores)
def test_all_methods_agree_where_there_are_scores(theta: torch.Tensor) -> None:
    p = (theta[:, None] - theta).sigmoid()
    expected = tuple(sorted(range(len(theta)), key=lambda i: (-theta[i].item(), i)))
    for method in METHODS:
        ranking = rank(p, method)
        assert ranking.cycle == ()
        assert ranking.cyclic_triples == 0
        values = [theta[i].item() for i in ranking.order]
        assert values == [theta[i].item() for i in expected], method


def test_certainties_have_an_answer() -> None:
    assert rank(torch.tensor([[0.5, 1, 1], [0, 0.5, 1], [0, 0, 0.5]]), "bradley-terry").order == (0, 1, 2)


@settings(deadline=None)
@given(vectors)
def test_the_skew_form(outputs: torch.Tensor) -> None:
    """s(a, b) = −s(b, a), s(a, a) = 0, and two dimensions as the matrix [[0, −1], [1, 0]] has it."""
    p = win_probabilities(outputs, 0.5)
    torch.testing.assert_close(p + p.T, torch.ones_like(p))
    assert (p.diagonal() == 0.5).all()
    blocks = torch.block_diag(*[torch.tensor([[0.0, -1.0], [1.0, 0.0]])] * (outputs.shape[1] // 2))
    torch.testing.assert_close(p, ((outputs @ blocks.T @ outputs.T) / 0.5).sigmoid(), atol=1e-5, rtol=1e-5)


@settings(deadline=None)
@given(vectors)
def test_a_cycle_is_one(outputs: torch.Tensor) -> None:
    p = win_probabilities(outputs, 0.5)
    cycle = find_cycle(p)
    assert len(set(cycle)) == len(cycle)
    assert all(p[a, b] > 0.5 for a, b in zip(cycle, cycle[1:] + cycle[:1], strict=True))
    if not cycle:
        assert rank(p).cyclic_triples == 0


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_a_shortest_cycle_among_ties(count: int, seed: int) -> None:
    """Against all orders of all subsets: none shorter, and none at all where none is found."""
    drawn = torch.randint(3, (count, count), generator=torch.Generator().manual_seed(seed)).triu(1)
    p = torch.tensor([0.5, 0.3, 0.7])[drawn].triu(1)
    p = p + (1 - p.T).tril(-1) + 0.5 * torch.eye(count)

    def closed(path: tuple[int, ...]) -> bool:
        return all(p[a, b] > 0.5 for a, b in zip(path, path[1:] + path[:1], strict=True))

    lengths = [size for size in range(3, count + 1) if any(map(closed, permutations(range(count), size)))]
    found = find_cycle(p)
    assert len(found) == min(lengths, default=0)
    assert not found or closed(found)
    assert found[:1] == tuple(sorted(found)[:1])


def test_many_candidates_have_a_report_too() -> None:
    """Half a million pairs; ranks that follow from scores have no cycle, one pair turned round makes one."""
    theta = torch.linspace(-3, 3, 1000).double()
    p = (theta[:, None] - theta).sigmoid()
    assert rank(p).cycle == ()
    p[700, 300], p[300, 700] = 0.4, 0.6
    ranking = rank(p)
    assert len(ranking.cycle) == 3
    assert {300, 700} < set(ranking.cycle)
    assert ranking.cyclic_triples == 399
    assert ranking.report([f"seed {k}" for k in range(1000)]).startswith("seed 999 is first of 1000 by borda, but")


def test_probabilities_of_some_against_others() -> None:
    outputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    whole = win_probabilities(outputs, 0.5)
    torch.testing.assert_close(win_probabilities(outputs[1:3], 0.5, others=outputs), whole[1:3])
    torch.testing.assert_close(win_probabilities(outputs[:2, :1], 0.5, others=outputs[3:, :1]),
                               win_probabilities(outputs[:, :1], 0.5)[:2, 3:])  # fmt: skip


def test_rounding_to_bfloat16_makes_ties() -> None:
    """Of a difference of 0.0003 / 0.1 nothing is left; a pair that bfloat16 already rounds together ties as well."""
    outputs = torch.tensor([[0.0003], [0.0], [1.0], [1.001]])
    exact, rounded = win_probabilities(outputs, 0.1), win_probabilities(outputs, 0.1, bfloat16=True)
    assert exact[0, 1] > 0.5
    assert exact[3, 2] > 0.5
    assert rounded[0, 1] == rounded[3, 2] == 0.5
    assert accuracy(torch.stack([exact[0, 1], exact[3, 2], exact[2, 0]])) == (1.0, 1.0)
    with_ties, without_ties = accuracy(torch.stack([rounded[0, 1], rounded[3, 2], rounded[2, 0]]))
    assert with_ties == pytest.approx(1 / 3)
    assert without_ties == 1.0


def test_the_two_accuracies_by_hand() -> None:
    assert accuracy(torch.tensor([0.9, 0.5, 0.5, 0.2, 0.6])) == (2 / 5, 2 / 3)
    with_ties, without_ties = accuracy(torch.tensor([0.5, 0.5]))
    assert with_ties == 0
    assert math.isnan(without_ties)


@pytest.mark.parametrize(
    "preferences",
    [torch.zeros(2, 3), torch.zeros(0, 0), torch.full((2, 2), 0.9), torch.full((2, 2), torch.nan),
     torch.tensor([[0.5, 1.5], [-0.5, 0.5]])],
)  # fmt: skip
def test_what_is_no_preference_is_refused(preferences: torch.Tensor) -> None:
    with pytest.raises(RewardError, match="expected"):
        rank(preferences)


def test_unknown_method_and_no_pairs() -> None:
    with pytest.raises(RewardError, match="expected one of copeland, borda, bradley-terry"):
        rank(ROCK_PAPER_SCISSORS, "elo")
    with pytest.raises(RewardError, match="at least one"):
        accuracy(torch.empty(0))
