"""Sequential Monte Carlo on denoising paths: looks weigh the particles, resampling moves the effort to the promising.

The weighted population that comes out stands for p(x)·exp(r(x) / temperature) / Z, whatever the looks, potential,
resampler and tempering; these decide how precisely. FK steering is the general case, `presets.py` holds published
settings. Weights are carried over looks that do not resample.

Copies need fresh noise to part: that of the steps after a look, or that of going `back`, after a resampling, by the
forward kernel and denoising the same steps again. The latter costs NFE and serves deterministic solvers too. Without
either (`stochastic` is False and nothing goes back) particles are weighted but never resampled: copies would stay equal
for ever. All resampled particles go back, whether copies or not; so the end of their path has the law of the model
still, and the weights stay right.

References:
    Singhal et al., "A General Framework for Inference-time Scaling and Steering of Diffusion Models", 2025
    (arXiv 2501.06848).
    Chopin and Papaspiliopoulos, "An Introduction to Sequential Monte Carlo", 2020, chapter 10.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import torch

from bon_search.checks import check_share
from bon_search.errors import SearchError
from bon_search.ledger import Cost
from bon_search.looks import Looks, look_steps
from bon_search.potentials import POTENTIALS, TEMPERINGS, Potential, Scale, Tempering, adaptive
from bon_search.resampling import RESAMPLERS, Resampler, multinomial
from bon_search.search import Critic, seeds
from bon_search.weighted import SmcScored, Weighted, checked_scores
from pipelines.noise import derive

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.sampler import Sampler

__references__ = ("arXiv:2501.06848", "arXiv:1707.01845")
__cost__ = "n·K NFE and n·K·back more at each resampling, n·(looks + 1) scores"
__branches__ = True

Mode: TypeAlias = Literal["search", "sampling"]
Choice = TypeVar("Choice", bound=Callable[..., object])

PAPERS_NAMES = {"diff": "difference", "max": "maximum", "add": "sum", "immediate": "current", "rt": "current"}


def smc(  # noqa: PLR0913  the dimensions of the method; the presets fix most of them
    sampler: Sampler,
    critic: Critic,
    *,
    n: int,
    looks: Looks = None,
    temperature: float | None = None,
    strength: float = 3.0,
    deviation: float | None = None,
    tempering: str | Tempering = "constant",
    potential: str | Potential = "difference",
    resampler: str | Resampler = "ssp",
    threshold: float = 0.5,
    back: float = 0.0,
    mode: Mode = "search",
    seed: int = 0,
) -> Iterator[SmcScored]:
    """Steer n particles towards p(x)·exp(r(x) / temperature), by weights and resampling at each look.

    Args:
        sampler: Stochastic, or nothing is resampled.
        critic: Scores previews and finished particles; must be absolute, since scores are compared over time.
        n: Number of particles.
        looks: Where to weigh: steps 1 … K, shares of K, or how many, spread evenly from 25 % to 85 % of the steps
            (4 when None). The finished particles are always weighed.
        temperature: Divides the score, in its own units. None: deviation / strength.
        strength: The tilt in nats per deviation of the reward; used when the temperature is None.
        deviation: The reward's standard deviation within the prompt. None: that of the first look at which scores
            differ, once for the whole run; until then there is no steering. Previews spread less than finished
            pictures, so a measured deviation steers harder than that of a calibration (`Previews.deviation`).
        tempering: "constant", "increasing" (DAS), "adaptive" (bisection on the ESS), or a `Tempering`.
        potential: "difference", "maximum", "sum", "current", or a `Potential`.
        resampler: "ssp", "systematic", "stratified", "residual", "multinomial", "single", or a `Resampler`.
        threshold: Resample at a look whose ESS is at most threshold·n; 0 never, 1 always.
        back: Share of the steps that particles go back after each resampling, at least one step; 0: they do not.
        mode: "search" ends with all distinct finished particles and their weights, of which the caller takes the
            best; "sampling" ends with a single draw in proportion to the weights.
        seed: Particle k starts from seed + k; resampling derives from it too.

    Yields:
        The population at each look, before it is resampled, and at last the finished one.

    Raises:
        SearchError: An argument out of range, an unknown name, a reward that only ranks, a score that is not finite.
    """
    if not getattr(critic, "absolute", True):
        raise SearchError(
            "Steering compares scores over time, but this critic's reward only ranks the candidates of one look "
            "(absolute = False); steer with an absolute reward, such as a Bradley-Terry or classification head, or use "
            "best_of_n or halving."
        )
    if not 0 <= threshold <= 1:
        raise SearchError(f"The threshold is {threshold}; it is a share of n from 0 (never resample) to 1 (always).")
    check_share("back", back, zero=True)
    if mode not in ("search", "sampling"):
        raise SearchError(f'The mode {mode!r} is unknown; choose "search" or "sampling".')
    steering = _Steering(
        sampler=sampler,
        critic=critic,
        seeds=seeds(seed, n),
        looks=look_steps(looks, sampler.steps),
        scale=Scale(temperature, strength, deviation),
        tempering=_named("tempering", tempering, TEMPERINGS),
        potential=_named("potential", potential, POTENTIALS),
        resampler=_named("resampler", resampler, RESAMPLERS),
        threshold=threshold,
        back=_steps_back(back, sampler.steps),
    )
    return steering.run() if mode == "search" else _one_draw(steering.run(), derive("draw", seed))


def cost(n: int, steps: int, looks: Looks = None, back: float = 0.0) -> Cost:
    """What `smc` spends at most: looks that do not resample do not go back, equal finished particles count once."""
    places = look_steps(looks, steps)
    again = sum(min(_steps_back(back, steps), place) for place in places)
    times = n * (len(places) + 1)
    return Cost(nfe=n * (steps + again), rewards=times, decodes=times)


@dataclass(frozen=True)
class _Steering:
    """A particle filter with its settings checked; the arguments of `smc`."""

    sampler: Sampler
    critic: Critic
    seeds: Sequence[int]
    looks: tuple[int, ...]
    scale: Scale
    tempering: Tempering
    potential: Potential
    resampler: Resampler
    threshold: float
    back: int

    def __post_init__(self) -> None:
        if self.tempering is adaptive and not 0 < self.threshold < 1:
            raise SearchError(
                f"Adaptive tempering aims at an ESS of threshold·n, so the threshold must lie between 0 and 1, but it "
                f"is {self.threshold}; 0.5 is usual."
            )

    def run(self) -> Iterator[SmcScored]:
        state = Weighted.fresh(self.sampler.init(self.seeds))
        for step in self.looks:
            state = replace(state, particles=self.sampler.advance(state.particles, to=step))
            scores = self.critic(state.particles)
            state = self._weigh(state, checked_scores(scores, state.particles))
            yield state.scored(scores)
            state = self._resample(state)
        end = self.sampler.advance(state.particles, to=self.sampler.steps)
        state = replace(state, particles=end).distinct()
        scores = self.critic(state.particles)
        yield self._finish(state, checked_scores(scores, state.particles)).scored(scores)

    def _weigh(self, state: Weighted, scores: Tensor) -> Weighted:
        """Multiply the weights by the potential of this look, at the strength that the tempering chooses."""
        full = state.full or self.scale.full(scores)
        history, before = torch.cat([state.scores, scores[None]]), self._product(state)

        def at(share: float) -> Weighted:
            strengths = torch.cat([state.strengths, torch.tensor([share * (full or 0.0)], dtype=torch.float64)])
            after = self.potential(history, strengths, len(self.looks))
            weights = state.weights.times(after - before)
            return replace(state, weights=weights, scores=history, strengths=strengths, full=full)

        progress, wanted = state.particles.step / self.sampler.steps, self.threshold * len(self.seeds)
        return at(self.tempering(progress, state.share, lambda share: at(share).weights.ess, wanted))

    def _finish(self, state: Weighted, scores: Tensor) -> Weighted:
        """The final correction: with it the product of all potentials is exp(r / temperature)."""
        full = state.full or self.scale.full(scores) or 0.0
        weights = state.weights.times(full * scores - self._product(state))
        return replace(state, weights=weights, strengths=torch.tensor([full], dtype=torch.float64), full=full)

    def _product(self, state: Weighted) -> Tensor:
        """Logarithm of the product of potentials so far, (N,)."""
        if not len(state.strengths):
            return torch.zeros(len(state.particles), dtype=torch.float64)
        return self.potential(state.scores, state.strengths, len(self.looks))

    def _resample(self, state: Weighted) -> Weighted:
        n, step = len(self.seeds), state.particles.step
        parts = self.back or getattr(self.sampler, "stochastic", True)
        if not parts or state.weights.ess > self.threshold * n * (1 + 1e-9):
            return replace(state, ancestors=None)
        state = state.resampled(self.resampler(state.weights.logs, n, derive("resample", self.seeds[0], step)))
        if not self.back:
            return state
        before = self.sampler.renoise(state.particles, max(0, step - self.back), derive("back", self.seeds[0], step))
        return replace(state, particles=self.sampler.advance(before, to=step))


def _steps_back(back: float, steps: int) -> int:
    return max(1, round(back * steps)) if back else 0


def _one_draw(looks: Iterator[SmcScored], seed: int) -> Iterator[SmcScored]:
    """The same looks, but of the finished population a single particle, drawn in proportion to the weights."""
    before = next(looks)
    for look in looks:
        yield before
        before = look
    assert before.log_weights is not None
    drawn = multinomial(before.log_weights, 1, seed)
    yield replace(
        before,
        particles=before.particles[drawn],
        scores=before.scores[drawn.to(before.scores.device)],
        log_weights=torch.zeros(1, dtype=torch.float64),
        ancestors=drawn if before.ancestors is None else before.ancestors[drawn],
    )


def _named(kind: str, choice: str | Choice, known: Mapping[str, Choice]) -> Choice:
    if not isinstance(choice, str):
        return choice
    name = choice.lower()
    name = PAPERS_NAMES.get(name, name) if kind == "potential" else name
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}."
        raise SearchError(f"The {kind} {choice!r} is unknown; {hint}")
    return known[name]
