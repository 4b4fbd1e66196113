"""The population: N partly denoised samples at one step, immutable, with all that is needed to go on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

from pipelines.errors import PipelineError
from pipelines.noise import derive

Index: TypeAlias = Sequence[int] | Tensor | slice
"""Rows of a population: integers (negative ones count from the end), an integer or boolean tensor, or a slice."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A tensor of a solver that has one row per particle: (N, ...)."""

    tensor: Tensor


@dataclass(frozen=True, eq=False)
class SolverMemory:
    """What a multistep solver remembers between steps: attribute of the scheduler → value.

    A value is a plain one, shared by all particles, or `Rows`, or a list, tuple or dict of such values.
    """

    state: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    def __getitem__(self, order: Tensor) -> "SolverMemory":
        """The memory of the particles in `order`, an integer tensor (M,)."""
        return SolverMemory(_map(lambda tensors: tensors[0][order.to(tensors[0].device)], [self.state]))

    def detach(self) -> "SolverMemory":
        """The same numbers, from which no gradient flows back."""
        return SolverMemory(_map(lambda tensors: tensors[0].detach(), [self.state]))

    @staticmethod
    def cat(memories: Sequence["SolverMemory"]) -> "SolverMemory":
        """Join memories of populations at the same step, along N.

        Raises:
            PipelineError: some have a history and some have none, so they cannot run as one batch.
        """
        if len({tuple(sorted(memory.state)) for memory in memories}) > 1:
            raise PipelineError(
                "Cannot join particles that the solver has a history of with particles that start afresh, "
                "such as renoised ones; advance the two populations apart and join them when they are clean."
            )
        return SolverMemory(_map(torch.cat, [memory.state for memory in memories]))


def _map(rule: Callable[[list[Tensor]], Tensor], values: Sequence[object]) -> "Mapping[str, object]":
    """Walk the states of several memories side by side and apply the rule to each group of `Rows`."""
    walked = _walk(rule, values)
    assert isinstance(walked, Mapping)
    return walked


def _walk(rule: Callable[[list[Tensor]], Tensor], values: Sequence[object]) -> object:
    first = values[0]
    if isinstance(first, Rows):
        return Rows(rule([value.tensor for value in values if isinstance(value, Rows)]))
    if isinstance(first, Mapping):
        keys = {key: [value[key] for value in values if isinstance(value, Mapping)] for key in first}
        return MappingProxyType({key: _walk(rule, group) for key, group in keys.items()})
    if isinstance(first, list | tuple):
        groups = zip(*(value for value in values if isinstance(value, list | tuple)), strict=True)
        return type(first)(_walk(rule, group) for group in groups)
    return first


EMPTY = SolverMemory()


@dataclass(frozen=True, eq=False)
class Particles:
    """N partly denoised samples, all at the same step, with all that is needed to go on.

    Attributes:
        latents: (N, ...) in the pipeline's own packing.
        step: 0 = pure noise, sampler.steps = clean.
        streams: (N,) keys of each particle's future noise.
        x0: (N, ...) the last clean-latent estimate, predicted from the state one step before `latents`.
        memory: the history of a multistep solver, with one row per particle.
        start: (N,) at step 0, the noise that each comes from, where whoever moves the particles keeps it; samplers
            do not.
    """

    latents: Tensor
    step: int
    streams: tuple[int, ...]
    x0: Tensor | None = None
    memory: SolverMemory = EMPTY
    start: "Particles | None" = None

    def __post_init__(self) -> None:
        if len(self.streams) != len(self.latents):
            raise PipelineError(
                f"A population needs one stream per particle, but got {len(self.streams)} streams "
                f"for {len(self.latents)} latents."
            )

    def __len__(self) -> int:
        """N."""
        return len(self.streams)

    def __getitem__(self, index: Index) -> "Particles":
        """Select and reorder. A particle selected twice stays twice the same for ever: see `fork`."""
        order = self._order(index)
        rows = order.to(self.latents.device)
        return replace(
            self,
            latents=self.latents[rows],
            streams=tuple(self.streams[i] for i in order.tolist()),
            x0=None if self.x0 is None else self.x0[rows],
            memory=self.memory[order],
            start=None if self.start is None else self.start[order],
        )

    def fork(self, ancestors: Index) -> "Particles":
        """Select like `[ancestors]`, but so that copies part: all streams of the result are distinct.

        The first copy of a particle keeps its stream, and with it its future. Copy j = 1, 2, … gets the stream
        `derive("fork", stream of the ancestor, step, j)`, or the next j whose key this population has not yet seen.
        So the result depends on the ancestors alone, and neither on chance nor on earlier forks elsewhere.
        """
        chosen = self[ancestors]
        seen, given = set(self.streams), set[int]()
        fresh = []
        for stream in chosen.streams:
            if stream in given:
                stream = next(key for key in _copies(stream, self.step) if key not in seen)
            fresh.append(stream)
            given.add(stream)
            seen.add(stream)
        return replace(chosen, streams=tuple(fresh))

    def detach(self) -> "Particles":
        """The same numbers, from which no gradient flows back; the latents share their storage."""
        x0 = None if self.x0 is None else self.x0.detach()
        return replace(self, latents=self.latents.detach(), x0=x0, memory=self.memory.detach())

    @staticmethod
    def cat(populations: Sequence["Particles"]) -> "Particles":
        """Join populations of the same sampler at the same step, in the order given.

        Raises:
            PipelineError: nothing to join, different steps, or only some have an x0 or a solver history.
        """
        if not populations:
            raise PipelineError("There are no populations to join; give at least one.")
        if len({one.step for one in populations}) > 1:
            steps = ", ".join(str(one.step) for one in populations)
            raise PipelineError(f"Only particles at the same step can be joined, but these are at steps {steps}.")
        estimates = [one.x0 for one in populations if one.x0 is not None]
        starts = [one.start for one in populations if one.start is not None]
        if estimates and len(estimates) < len(populations):
            raise PipelineError("Only some of these particles have an x0; advance the others before joining them.")
        return Particles(
            latents=torch.cat([one.latents for one in populations]),
            step=populations[0].step,
            streams=tuple(stream for one in populations for stream in one.streams),
            x0=torch.cat(estimates) if estimates else None,
            memory=SolverMemory.cat([one.memory for one in populations]),
            start=Particles.cat(starts) if len(starts) == len(populations) else None,
        )

    def _order(self, index: Index) -> Tensor:
        """The index as integers (M,) in [0, N), on the CPU."""
        if isinstance(index, slice):
            return torch.tensor(range(len(self))[index], dtype=torch.long)
        order = torch.as_tensor(index).cpu()
        if order.dtype == torch.bool and order.shape == (len(self),):
            return order.nonzero().flatten()
        if order.ndim != 1 or order.numel() == 0 or order.is_floating_point() or order.dtype == torch.bool:
            raise PipelineError(
                f"Particles are indexed by a non-empty list of integers, a slice or a mask, but got {index!r}."
            )
        if order.min() < -len(self) or order.max() >= len(self):
            raise PipelineError(f"Index {index!r} leaves the population, which has {len(self)} particles.")
        return order % len(self)


def _copies(stream: int, step: int) -> Iterator[int]:
    return (derive("fork", stream, step, copy) for copy in count(1))
