"""The order of the data is a function of (seed, step), passes through all of it, and shares it out."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rewards.training.order import Order, shares


@settings(deadline=None, max_examples=40)
@given(count=st.integers(1, 40), batch=st.integers(1, 9), steps=st.integers(1, 80), seed=st.integers(0, 3))
def test_records_are_gone_through_evenly(count: int, batch: int, steps: int, seed: int) -> None:
    """After any number of passes every record was seen as often as any other, but for the pass that is under way."""
    order = Order([index % 5 for index in range(count)], batch, steps, seed)
    seen = [record for step in range(steps) for record in order(step)]
    assert len(seen) == steps * batch
    times = [seen.count(record) for record in range(count)]
    assert max(times) - min(times) <= 1
    assert order(steps - 1) == Order([index % 5 for index in range(count)], batch, steps, seed)(steps - 1)


def test_records_of_one_length_come_together_and_seeds_differ() -> None:
    lengths = [index % 2 for index in range(256)]
    order = Order(lengths, 8, 32, 0)
    mixed = [step for step in range(32) if len({lengths[record] for record in order(step)}) > 1]
    assert mixed == []
    assert [order(step) for step in range(32)] != [Order(lengths, 8, 32, 1)(step) for step in range(32)]


@settings(deadline=None)
@given(count=st.integers(1, 60), batch=st.integers(1, 40), equal=st.booleans(), seed=st.integers(0, 3))
@example(count=20, batch=6, equal=True, seed=0)
@example(count=100, batch=8, equal=True, seed=0)
@example(count=10, batch=4, equal=True, seed=0)
@example(count=10, batch=7, equal=False, seed=0)
def test_no_step_holds_a_record_more_often_than_it_must(count: int, batch: int, equal: bool, seed: int) -> None:
    """Neither sorting nor the step that two passes share brings the copies of a record together."""
    order = Order([0] * count if equal else list(range(count)), batch, 60, seed)
    for step in range(60):
        chosen = order(step)
        assert max(chosen.count(record) for record in chosen) == -(-batch // count)


@settings(deadline=None)
@given(count=st.integers(1, 60), batch=st.integers(1, 40), seed=st.integers(0, 3))
def test_every_pass_holds_every_record_once(count: int, batch: int, seed: int) -> None:
    """Where steps end with a pass, all were seen equally often; else those that the step under way has of it."""
    order = Order([index % 5 for index in range(count)], batch, 60, seed)
    seen = [0] * count
    for step in range(60):
        for record in order(step):
            seen[record] += 1
        passes, rest = divmod((step + 1) * batch, count)
        if rest < batch:  # the step that ended the pass
            assert sorted(set(seen)) == ([passes, passes + 1] if rest else [passes])
            assert seen.count(passes + 1) == rest


@pytest.mark.parametrize(("count", "batch"), [(6000, 32), (1000, 7)])
def test_many_records_come_without_copies_from_any_step_on(count: int, batch: int) -> None:
    """As a training that is resumed asks for them: a later step first."""
    order = Order([0] * count, batch, 1000, 1)
    chosen = {step: order(step) for step in [*range(700, 800), *range(400)]}
    assert all(len(set(records)) == batch for records in chosen.values())
    assert chosen[750] == Order([0] * count, batch, 1000, 1)(750)


@given(count=st.integers(1, 12), micro=st.integers(1, 5), processes=st.integers(1, 4))
def test_processes_share_a_step_without_loss_in_equally_many_parts(count: int, micro: int, processes: int) -> None:
    records = list(range(count * processes))
    parts = [shares(records, micro, rank, processes) for rank in range(processes)]
    assert sorted(record for mine in parts for part in mine for record in part) == records
    assert len({len(mine) for mine in parts}) == 1
    assert all(0 < len(part) <= micro for mine in parts for part in mine)
