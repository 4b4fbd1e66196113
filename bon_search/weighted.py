"""A population in the course of a particle filter: particles, their weights, and what they were given on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from bon_search.errors import SearchError
from bon_search.potentials import Weights
from bon_search.search import Scored

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.particles import Particles


@dataclass(frozen=True)
class SmcScored(Scored):
    """The weighted population of a particle filter at one look.

    Attributes:
        log_evidence: Estimate of log E[exp(potential)] under the model; at the end log Z = log E[exp(r / temperature)].
        temperature: What the scores are divided by at this look; inf where they do not count yet.
        ess: Effective sample size, between 1 and n.
        ancestors: (N,) whom of the last look's population each particle descends from; None where all are their own.
    """

    log_evidence: float = 0.0
    temperature: float = math.inf
    ess: float = 1.0
    ancestors: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Weighted:
    """Particles and what they have been through.

    Attributes:
        particles: N of them.
        weights: since the last resampling.
        scores: (k, N) of the k looks so far, at the particle's own ancestors.
        strengths: (k,) of these looks.
        full: the strength of the target, once it is known.
        ancestors: (N,) in the population of the last look; None where all are their own.
    """

    particles: Particles
    weights: Weights
    scores: Tensor
    strengths: Tensor
    full: float | None = None
    ancestors: Tensor | None = None

    @classmethod
    def fresh(cls, particles: Particles) -> Weighted:
        """The start: equal weights, no scores."""
        n = len(particles)
        nothing = torch.empty(0, n, dtype=torch.float64)
        return cls(particles, Weights.equal(n), nothing, nothing[:, 0])

    @property
    def share(self) -> float:
        """The strength of the last look as a share of the full one."""
        return float(self.strengths[-1]) / self.full if self.full and len(self.strengths) else 0.0

    def resampled(self, ancestors: Tensor) -> Weighted:
        """Everything a particle owns, at its ancestor; weights are equal again, and copies get fresh noise."""
        return replace(
            self,
            particles=self.particles.fork(ancestors),
            weights=self.weights.resampled(),
            scores=self.scores[:, ancestors],
            ancestors=ancestors,
        )

    def distinct(self) -> Weighted:
        """Copies that stayed equal become one particle with the sum of their weights."""
        rows = torch.cat([_bytes(self.particles.latents), _bytes(self.scores.T)], dim=1)
        groups: dict[bytes, list[int]] = {}
        for k, row in enumerate(rows):
            groups.setdefault(row.numpy().tobytes(), []).append(k)
        if len(groups) == len(rows):
            return self
        firsts = torch.tensor([members[0] for members in groups.values()])
        return replace(
            self,
            particles=self.particles[firsts],
            weights=self.weights.merged(groups.values()),
            scores=self.scores[:, firsts],
            ancestors=firsts if self.ancestors is None else self.ancestors[firsts],
        )

    def scored(self, scores: Tensor) -> SmcScored:
        """What a search yields; `scores` (N,) as the critic gave them."""
        strength = float(self.strengths[-1])
        return SmcScored(
            self.particles,
            scores,
            self.weights.logs,
            self.weights.log_evidence,
            1 / strength if strength else math.inf,
            self.weights.ess,
            self.ancestors,
        )


def checked_scores(scores: Tensor, particles: Particles) -> Tensor:
    """Scores as (N,) float64 on the CPU."""
    logs = scores.detach().to("cpu", torch.float64)
    if logs.shape != (len(particles),):
        raise SearchError(f"The critic gave scores of shape {tuple(logs.shape)} for {len(particles)} particles.")
    broken = (~logs.isfinite()).nonzero().flatten().tolist()
    if broken:
        raise SearchError(
            f"The critic gave {logs[broken[0]].item()} for particle {broken[0]} at step {particles.step}; steering "
            "needs finite scores: give a hard constraint a finite penalty."
        )
    return logs


def _bytes(rows: Tensor) -> Tensor:
    """Each row of (N, ...) as bytes, (N, B) on the CPU."""
    return rows.detach().cpu().flatten(start_dim=1).clone(memory_format=torch.contiguous_format).view(torch.uint8)
