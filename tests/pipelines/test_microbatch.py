"""Batches cover the population in order, halve when memory runs out, and stay halved."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import OutOfMemory, PipelineError
from pipelines.microbatch import MicroBatches

CPU = "[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."


def machine(fits: int, error: Exception, sizes: list[int]) -> object:
    def work(rows: slice) -> list[int]:
        size = rows.stop - rows.start
        sizes.append(size)
        if size > fits:
            raise error
        return list(range(rows.start, rows.stop))

    return work


@given(st.integers(1, 40), st.none() | st.integers(1, 12), st.integers(1, 12))
def test_every_particle_is_worked_on_once_and_in_order(n: int, size: int | None, fits: int) -> None:
    sizes: list[int] = []
    results = MicroBatches(size).run(n, machine(fits, torch.OutOfMemoryError("CUDA out of memory."), sizes))
    assert [i for part in results for i in part] == list(range(n))
    failures = sum(size > fits for size in sizes)
    assert failures <= 6  # 40 → 20 → 10 → 5 → 3 → 2 → 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU), MemoryError()])
def test_the_smaller_batch_is_kept(error: Exception) -> None:
    sizes: list[int] = []
    batches = MicroBatches()
    batches.run(16, machine(4, error, sizes))
    assert sizes == [16, 8, 4, 4, 4, 4]
    batches.run(8, machine(4, error, sizes))
    assert sizes[6:] == [4, 4]


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="must match"):
        MicroBatches().run(4, machine(2, RuntimeError("sizes must match"), []))


def test_when_one_particle_does_not_fit() -> None:
    with pytest.raises(OutOfMemory, match="One particle at a time does not fit"):
        MicroBatches().run(4, machine(0, RuntimeError(CPU), []))
    with pytest.raises(PipelineError, match="`batch_size` must be at least 1"):
        MicroBatches(0)
