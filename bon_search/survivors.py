"""How a search starts from the survivors of another: a sampler whose first noises are theirs.

A survivor is a finished candidate with the noise that it comes from. `Continued` keeps that noise beside every particle
it moves (`Particles.start`), and its `init` gives the noise of the k-th best survivor for the k-th seed, and fresh
noise for all further seeds; so every search that begins with `init` begins with them, and none knows.

Whoever goes undisturbed from its noise to the end keeps its name, for what is made of it is the same candidate; for
such ones a search that takes its first candidates to the end at once need not pay again. What was renoised, copied,
pushed or moved on the way has a name of its own, and from its noise alone becomes another candidate, with another name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from bon_search.search import Critic, Scored
from pipelines.noise import derive
from pipelines.particles import Particles

if TYPE_CHECKING:
    from torch import Tensor

    from bon_search.ledger import MeteredSampler


@dataclass(frozen=True, eq=False)
class Survivor:
    """One finished candidate.

    Attributes:
        start: One particle at step 0: the noise that it comes from, or that its ancestor comes from.
        end: The candidate.
        score: Of it, ().
    """

    start: Particles
    end: Particles
    score: Tensor

    @property
    def undisturbed(self) -> bool:
        """Whether its noise, taken to the end, is this very candidate."""
        return self.start.streams == self.end.streams

    @property
    def begun(self) -> Particles:
        """Its noise under the name of the candidate that comes of it."""
        name = self.end.streams[0]
        return self.start if self.undisturbed else replace(self.start, streams=(derive("then", name),))


def survivors(before: Sequence[Survivor], scored: Scored, most: int) -> tuple[Survivor, ...]:
    """The best so far, of each noise one, best first and the earlier first where equal; `most` at most."""
    found = {_noise(one.start): one for one in before}
    for row, score in enumerate(scored.scores):
        end = scored.particles[[row]]
        if end.start is None:
            continue
        one, key = Survivor(end.start, replace(end, start=None), score), _noise(end.start)
        if key not in found or score > found[key].score:
            found[key] = one
    return tuple(sorted(found.values(), key=lambda one: -float(one.score))[:most])


def _noise(start: Particles) -> bytes:
    return start.latents.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes()


class Continued:
    """A sampler that begins with survivors, and keeps beside all particles the noise that they come from.

    Args:
        sampler: Metered; moves the particles.
        begun: Seed → what `init` gives for it, one particle at step 0; fresh noise for all others.
        ended: Name → the finished candidate, for which nothing is paid.
    """

    def __init__(
        self,
        sampler: MeteredSampler,
        begun: Mapping[int, Particles] | None = None,
        ended: Mapping[int, Particles] | None = None,
    ) -> None:
        self.steps = sampler.steps
        self._sampler = sampler
        self._begun = begun or {}
        self._ended = ended or {}

    @property
    def stochastic(self) -> bool:
        """Whether copies of a particle part on the way."""
        return self._sampler.stochastic

    @property
    def stochastic_steps(self) -> range:
        """The steps at which they may part."""
        return self._sampler.stochastic_steps

    @property
    def start_scale(self) -> float:
        """The standard deviation of the noise that `init` makes."""
        return self._sampler.start_scale

    def noise_scale(self, step: int) -> float:
        """The standard deviation of the fresh noise after the step from position `step`; 0 if none."""
        return self._sampler.noise_scale(step)

    def with_grad(self) -> Continued:
        """The same, whose moves let gradients flow, which takes evaluating finished candidates again."""
        return Continued(self._sampler.with_grad(), self._begun)

    def with_steps(self, steps: int) -> Continued:
        """The same in another number of steps, which may ask for noise of another scale."""
        other = self._sampler.with_steps(steps, self._named)
        scale = other.start_scale / self.start_scale if self._begun else 1.0
        begun = {seed: replace(one, latents=one.latents * scale) for seed, one in self._begun.items()}
        return Continued(other, begun)

    def init(self, seeds: Sequence[int]) -> Particles:
        """The noise of survivors for their seeds, fresh noise for others; free."""
        ready = [self._begun.get(seed) for seed in seeds]
        return _filled(ready, lambda rows: self._sampler.init([seeds[row] for row in rows]))

    def _named(self, names: Sequence[int]) -> Particles:
        """What `init` gives, by the names of the particles."""
        begun = {one.streams[0]: one for one in self._begun.values()}
        return _filled(
            [begun.get(name) for name in names], lambda rows: self._sampler.init([names[row] for row in rows])
        )

    def advance(self, particles: Particles, to: int) -> Particles:
        """Denoise to step `to`; (to - step) NFE per particle, but for candidates that are finished already."""
        start = _bare(particles) if particles.step == 0 else particles.start
        if to == particles.step:
            return particles
        ended = self._ended if particles.step == 0 and to == self.steps else {}
        moved = _filled(
            [ended.get(stream) for stream in particles.streams],
            lambda rows: self._sampler.advance(particles if len(rows) == len(particles) else particles[rows], to),
        )
        return replace(moved, start=start)

    def renoise(self, particles: Particles, to: int, seed: int) -> Particles:
        """Go back to step `to` by the forward kernel; free."""
        return replace(self._sampler.renoise(particles, to, seed), start=particles.start)

    def decode(self, particles: Particles) -> Tensor:
        """Pictures of the particles; one decode each."""
        return self._sampler.decode(particles)


class Remembering:
    """A critic that knows the scores of finished candidates, and asks for those of others only.

    Args:
        critic: Judges the others.
        known: Name → score () of the finished candidate of that name.
    """

    def __init__(self, critic: Critic, known: Mapping[int, Tensor]) -> None:
        self.absolute: bool = getattr(critic, "absolute", True)
        self._critic = critic
        self._known = known
        self._last: tuple[Particles, Scored | None] | None = None

    def __call__(self, particles: Particles) -> Tensor:
        """Scores (N,)."""
        rows = [row for row, stream in enumerate(particles.streams) if stream not in self._known]
        if len(rows) == len(particles):
            return self._critic(particles)
        asked = particles[rows] if rows else None
        new = Scored(asked, self._critic(asked)) if asked is not None else None
        self._last = (particles, new)
        scores = {row: self._known[stream] for row, stream in enumerate(particles.streams) if stream in self._known}
        scores |= dict(zip(rows, new.scores, strict=True)) if new else {}
        return torch.stack([scores[row] for row in range(len(particles))])

    def new(self, scored: Scored) -> Scored | None:
        """Of a population just judged those that were asked for; None if there are none."""
        last = self._last
        return last[1] if last is not None and last[0] is scored.particles else scored


def _bare(particles: Particles) -> Particles:
    return Particles(particles.latents.detach(), 0, particles.streams)


def _filled(ready: Sequence[Particles | None], make: Callable[[list[int]], Particles]) -> Particles:
    """A population (N,) of single particles, where they are ready; `make` is asked for the rows of the others."""
    rest = [row for row, one in enumerate(ready) if one is None]
    if len(rest) == len(ready):
        return make(rest)
    given = [(row, one) for row, one in enumerate(ready) if one is not None]
    rows = [row for row, _ in given] + rest
    joined = Particles.cat([one for _, one in given] + ([make(rest)] if rest else []))
    return joined[[rows.index(row) for row in range(len(ready))]]
