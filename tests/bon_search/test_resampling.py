"""Resampling schemes against n·w, within the bound of each; no test here could pass by luck more than once in 10^12."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bon_search.errors import SearchError
from bon_search.resampling import RESAMPLERS, Resampler, ess, multinomial, normalised, single, ssp, systematic

every = pytest.mark.parametrize("resampler", RESAMPLERS.values(), ids=RESAMPLERS)
offspring = pytest.mark.parametrize(
    "resampler", [value for key, value in RESAMPLERS.items() if key != "single"], ids=set(RESAMPLERS) - {"single"}
)
log_weights = st.lists(st.one_of(st.floats(-30, 5), st.just(-math.inf)), min_size=1, max_size=12).filter(
    lambda logs: max(logs) > -math.inf
)
numbers = st.integers(1, 20)
seeds = st.integers(0, 2**62)

LOGS = torch.tensor([0.3, 0.07, 0.25, 0.11, 0.02, 0.25], dtype=torch.float64).log() + 700  # exp(700) overflows float32


def children(resampler: Resampler, logs: Tensor, n: int, seed: int) -> Tensor:
    return torch.bincount(resampler(logs, n, seed), minlength=len(logs)).double()


def table(resampler: Resampler, n: int, repeats: int) -> Tensor:
    """Numbers of children of LOGS over many seeds, (repeats, N)."""
    return torch.stack([children(resampler, LOGS, n, seed) for seed in range(repeats)])


@every
@given(logs=log_weights, n=numbers, seed=seeds)
@settings(max_examples=30, deadline=None)
def test_n_ancestors_in_order_the_same_for_the_same_seed_and_never_one_of_weight_zero(
    resampler: Resampler, logs: list[float], n: int, seed: int
) -> None:
    weights = torch.tensor(logs, dtype=torch.float64)
    ancestors = resampler(weights, n, seed)
    assert ancestors.shape == (n,)
    assert ancestors.dtype == torch.int64
    assert ancestors.equal(ancestors.sort().values)
    assert ancestors.equal(resampler(weights, n, seed))
    assert (weights[ancestors] > -math.inf).all()


@pytest.mark.parametrize(
    ("name", "below", "above"),
    [("residual", 1, math.inf), ("stratified", 2, 2), ("systematic", 1, 1), ("ssp", 1, 1)],
)
@given(logs=log_weights, n=numbers, seed=seeds)
@settings(max_examples=60, deadline=None)
def test_children_stay_within_the_bound_of_the_scheme(
    name: str, below: float, above: float, logs: list[float], n: int, seed: int
) -> None:
    weights = torch.tensor(logs, dtype=torch.float64)
    excess = children(RESAMPLERS[name], weights, n, seed) - n * weights.softmax(0)
    assert (excess > -below - 1e-9).all()
    assert (excess < above + 1e-9).all()


@every
@given(logs=log_weights, n=st.integers(1, 6), seed=st.integers(0, 2**40))
@settings(max_examples=3, deadline=None)
def test_unbiased_for_any_weights(resampler: Resampler, logs: list[float], n: int, seed: int) -> None:
    """Hoeffding: a mean of R values in [0, n] strays by n·sqrt(18/R) with a chance below 2·exp(-36)."""
    weights, repeats = torch.tensor(logs, dtype=torch.float64), 300
    mean = sum(children(resampler, weights, n, seed + k) for k in range(repeats)) / repeats
    assert ((mean - n * weights.softmax(0)).abs() < n * math.sqrt(18 / repeats)).all()


@every
def test_unbiased_to_the_third_digit(resampler: Resampler) -> None:
    n, repeats = 5, 1200
    counts = table(resampler, n, repeats)
    errors = counts.mean(0) - n * LOGS.softmax(0)
    assert (errors.abs() < 6 * counts.std(0) / math.sqrt(repeats) + 1e-12).all()


def test_variances_are_in_their_order() -> None:
    """Known: multinomial has n·w(1−w); with fraction f of n·w, ssp and systematic have f(1−f), the least possible."""
    n, repeats = 5, 1200
    weights = LOGS.softmax(0)
    fractions = n * weights - (n * weights).floor()
    variances = {name: table(resampler, n, repeats).var(0) for name, resampler in RESAMPLERS.items()}
    torch.testing.assert_close(variances["multinomial"], n * weights * (1 - weights), rtol=0.2, atol=0.02)
    for name in ("ssp", "systematic"):
        torch.testing.assert_close(variances[name], fractions * (1 - fractions), rtol=0.2, atol=0.02)
    total = {name: float(variance.sum()) for name, variance in variances.items()}
    assert total["ssp"] < 0.8 * total["residual"] < 0.8 * total["multinomial"]
    assert 0.95 * float((fractions * (1 - fractions)).sum()) < total["stratified"] < 0.8 * total["multinomial"]


@offspring
@pytest.mark.parametrize("n", [1, 7, 64])
def test_equal_weights_keep_everyone_except_under_independent_draws(resampler: Resampler, n: int) -> None:
    if resampler is not multinomial:
        assert resampler(torch.full((n,), -3.0), n, 0).tolist() == list(range(n))


def test_single_copies_one() -> None:
    drawn = [single(LOGS, 4, seed).tolist() for seed in range(40)]
    assert {len(set(ancestors)) for ancestors in drawn} == {1}
    assert len({ancestors[0] for ancestors in drawn}) > 2


def test_seeds_matter() -> None:
    for resampler in (multinomial, systematic, ssp):
        assert len({tuple(resampler(LOGS, 7, seed).tolist()) for seed in range(40)}) > 3


def test_ess_between_one_and_n_at_any_height() -> None:
    assert ess(torch.full((9,), 1e4)).item() == pytest.approx(9)
    assert ess(torch.tensor([0.0, -math.inf, -1e5])).item() == pytest.approx(1)
    assert ess(torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log() - 900).item() == pytest.approx(1 / 0.375)
    assert normalised(torch.tensor([1e6, 1e6])).tolist() == pytest.approx([math.log(0.5)] * 2)


@every
@pytest.mark.parametrize(
    ("logs", "cure"),
    [
        ([0.0, math.nan], "particle 1 is nan.*not finite"),
        ([math.inf, 0.0], "particle 0 is inf"),
        ([-math.inf, -math.inf], "at least one must be possible"),
        ([], "non-empty"),
    ],
)
def test_broken_weights_are_refused(resampler: Resampler, logs: list[float], cure: str) -> None:
    with pytest.raises(SearchError, match=cure):
        resampler(torch.tensor(logs), 4, 0)


@pytest.mark.parametrize("constant", [1e35, -1e35])
def test_a_large_common_constant_changes_nothing(constant: float) -> None:
    logs = normalised(torch.full((4,), constant, dtype=torch.float64))
    torch.testing.assert_close(logs.exp(), torch.full((4,), 0.25, dtype=torch.float64))
