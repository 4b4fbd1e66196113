"""The order of the data is a function of (seed, step), passes through all of it, and shares it out."""

from hypothesis import given, settings
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


@given(passes=st.integers(1, 6), batch=st.integers(1, 9), times=st.integers(1, 8), seed=st.integers(0, 3))
def test_no_step_of_few_records_repeats_one(passes: int, batch: int, times: int, seed: int) -> None:
    """Sorted over more than one pass, all copies of a record would make up a step of their own."""
    order = Order(list(range(times * batch)), batch, passes * times, seed)
    for step in range(passes * times):
        assert len(set(order(step))) == batch


@given(count=st.integers(1, 12), micro=st.integers(1, 5), processes=st.integers(1, 4))
def test_processes_share_a_step_without_loss_in_equally_many_parts(count: int, micro: int, processes: int) -> None:
    records = list(range(count * processes))
    parts = [shares(records, micro, rank, processes) for rank in range(processes)]
    assert sorted(record for mine in parts for part in mine for record in part) == records
    assert len({len(mine) for mine in parts}) == 1
    assert all(0 < len(part) <= micro for mine in parts for part in mine)
