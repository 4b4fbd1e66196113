"""Selecting, forking and joining populations; the arithmetic of indices."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import PipelineError
from pipelines.particles import EMPTY, Particles, Rows, SolverMemory


def population(n: int, *, step: int = 2, streams: tuple[int, ...] | None = None) -> Particles:
    """Row i has the value i everywhere, in latents, x0 and memory."""
    rows = torch.arange(n, dtype=torch.float32)[:, None]
    memory = SolverMemory({"outputs": [None, Rows(rows * 3)], "order": 2, "last": Rows(rows * 5)})
    return Particles(rows.repeat(1, 2), step, streams or tuple(range(100, 100 + n)), rows * 2, memory)


def memory_rows(particles: Particles) -> tuple[list[float], list[float]]:
    outputs, last = particles.memory.state["outputs"], particles.memory.state["last"]
    return outputs[1].tensor.flatten().tolist(), last.tensor.flatten().tolist()  # type: ignore[index, attr-defined]


@given(st.integers(1, 6), st.data())
def test_selection_moves_everything_along(n: int, data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=8))
    expected = [range(n)[i] for i in index]
    for chosen in (population(n)[index], population(n)[torch.tensor(index)]):
        assert chosen.latents[:, 1].tolist() == expected
        assert chosen.streams == tuple(100 + i for i in expected)
        assert chosen.x0 is not None
        assert chosen.x0.flatten().tolist() == [2 * i for i in expected]
        assert memory_rows(chosen) == ([3 * i for i in expected], [5 * i for i in expected])
        assert chosen.memory.state["order"] == 2


@given(st.integers(1, 6), st.data())
def test_fork_parts_the_copies_and_keeps_the_first(n: int, data: st.DataObject) -> None:
    ancestors = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=10))
    forked = population(n).fork(ancestors)
    assert forked.latents[:, 0].tolist() == ancestors
    assert len(set(forked.streams)) == len(ancestors)
    firsts = [ancestors.index(ancestor) for ancestor in set(ancestors)]
    assert all(forked.streams[i] == 100 + ancestors[i] for i in firsts)
    fresh = [stream for i, stream in enumerate(forked.streams) if i not in firsts]
    assert not set(fresh) & set(population(n).streams)
    assert population(n).fork(ancestors).streams == forked.streams


def test_forking_again_never_repeats_a_stream() -> None:
    once = population(2).fork([0, 0])
    twice = once.fork([0, 0, 1, 1])
    assert len(set(twice.streams)) == 4
    assert population(2, step=3).fork([0, 0]).streams[1] != once.streams[1]
    assert len(set(population(3)[[1, 1, 1]].fork(slice(None)).streams)) == 3


def test_slices_and_masks() -> None:
    four = population(4)
    assert four[1:3].streams == (101, 102)
    assert four[::-1].streams == (103, 102, 101, 100)
    assert four[torch.tensor([True, False, False, True])].streams == (100, 103)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_cat_undoes_slicing(sizes: list[int]) -> None:
    whole = population(sum(sizes))
    bounds = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    parts = [whole[a:b] for a, b in pairwise(bounds)]
    joined = Particles.cat(parts)
    assert torch.equal(joined.latents, whole.latents)
    assert joined.streams == whole.streams
    assert memory_rows(joined) == memory_rows(whole)


@pytest.mark.parametrize("index", [[], [4], [-5], [0.5], 2, [[0]]])
def test_bad_indices_are_refused(index: object) -> None:
    with pytest.raises(PipelineError, match=r"index|population"):
        population(4)[index]  # type: ignore[index]


def test_what_cannot_be_joined() -> None:
    one = population(2)
    fresh = Particles(one.latents, one.step, one.streams, one.x0, EMPTY)
    bare = Particles(one.latents, one.step, one.streams)
    for others, word in (
        ([], "no populations"),
        ([population(2, step=3)], "steps"),
        ([fresh], "history"),
        ([bare], "x0"),
    ):
        with pytest.raises(PipelineError, match=word):
            Particles.cat([one, *others] if others else [])
    with pytest.raises(PipelineError, match="one stream per particle"):
        Particles(torch.zeros(2, 1), 0, (1,))
