"""A sampler with nothing learned: the diffusion of a Gaussian mixture, whose denoiser is known in closed form.

Documentation and the exact tests of every search stand on it: the law it samples, its tilts by linear and quadratic
rewards and their evidences are formulas (`mixture.py`), so a search is checked against numbers, not against itself.

>>> sampler = GaussianMixtureSampler([[-2.0], [2.0]], [0.5, 0.5], [0.7, 0.3], steps=10)
>>> sampler.advance(sampler.init([0, 1, 2]), to=10).latents.shape
torch.Size([3, 1])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from pipelines.errors import PipelineError
from pipelines.mixture import GaussianMixture
from pipelines.noise import check_seeds, derive, initial_noise, step_noise
from pipelines.particles import EMPTY, Particles
from pipelines.sampler import Images
from pipelines.transition import Eta, cosine_levels, forward, transition

Floats: TypeAlias = Sequence[float] | Tensor
Points: TypeAlias = Sequence[Sequence[float]] | Tensor


class GaussianMixtureSampler:
    """The four verbs on a Gaussian mixture, over the levels alpha_k = sin(πk/2K), sigma_k = cos(πk/2K).

    Three kinds of step, all through the one transition kernel (`transition.py`):

    * ``eta=0``, the default: DDIM, deterministic, as the stock solvers of real models are. The law at the end differs
      from the mixture by the discretisation. For one Gaussian N(0, 1) the error is known: the standard deviation comes
      out as cos(π/2K)^K, about 1 − π²/(8K), which is 0.94 at K = 20.
    * ``0 < eta <= 1``: DDIM with fresh noise; eta = 1 is DDPM; an `Eta` names a window of steps or another kind of
      noise. The noise *level* is right after each step, but the law is again only right as K grows, since the posterior
      mean stands for a point that is still uncertain.
    * ``exact=True``: the clean point that enters the kernel is drawn from its posterior. That is the true reverse of
      the diffusion, whatever K and eta: at each step k the particles follow ``marginal(k)`` exactly, and ``law`` at the
      end. It is always stochastic, and one step is a mixture of Gaussians rather than one Gaussian.

    In all three `Particles.x0` is the posterior mean given the state before the step, as for a real model.

    Attributes:
        steps: K.
        law: the mixture that is sampled.
        levels: K + 1 pairs (alpha, sigma).
        eta: which steps draw fresh noise, and how much.
        stochastic: whether the future of a particle depends on its stream.
        stochastic_steps: the steps at which it does.
    """

    def __init__(
        self, means: Points, scales: Floats, weights: Floats, steps: int, *, eta: float | Eta = 0.0, exact: bool = False
    ) -> None:
        """Make a sampler of Σ weights_m·N(means_m, scales_m²·I).

        Args:
            means: (M, D); numbers become float64, a tensor gives dtype and device.
            scales: (M,) positive standard deviations.
            weights: (M,) positive; need not sum to 1.
            steps: K >= 1.
            eta: in [0, 1], the share of DDPM's fresh noise; or an `Eta`.
            exact: draw the clean point of each step from its posterior, rather than take its mean.

        Raises:
            PipelineError: shapes, signs or ranges are otherwise.
        """
        self.law = _mixture(means, scales, weights)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise PipelineError(f"A sampler needs an integer number of steps of at least 1, but got {steps!r}.")
        self.steps = steps
        self.eta = Eta.of(eta, steps)
        self.exact = exact
        self.levels = cosine_levels(steps, dtype=self.law.means.dtype)

    @property
    def stochastic(self) -> bool:
        """Whether equal latents with different streams part on the way."""
        return len(self.stochastic_steps) > 0

    @property
    def stochastic_steps(self) -> range:
        """The steps at which they part; the last one, to sigma = 0, only if the clean point is drawn."""
        if self.exact:
            return range(self.steps)
        drawn = [step for step in range(self.steps - 1) if self.eta.acts(step)]
        return range(drawn[0], drawn[-1] + 1) if drawn else range(0)

    @property
    def start_scale(self) -> float:
        """The standard deviation of the noise that `init` makes: 1."""
        return 1.0

    def noise_scale(self, step: int) -> float:
        """The standard deviation of the fresh noise in the latents after the step from position `step`; 0 if none.

        Raises:
            PipelineError: there is no such step, or the sampler is exact, so that its steps are mixtures of Gaussians.
        """
        if self.exact:
            raise PipelineError("The steps of an exact sampler are mixtures of Gaussians; make one with exact=False.")
        now, then = self.levels[self._position(step)], self.levels[self._position(step + 1)]
        return float(self.eta.scale(now, then)) if self.eta.acts(step) else 0.0

    def with_steps(self, steps: int) -> GaussianMixtureSampler:
        """The same law in another number of steps; a window of eta becomes the whole run."""
        law, eta = self.law, Eta(self.eta.value, kind=self.eta.kind)
        return GaussianMixtureSampler(law.means, law.scales, law.log_weights.exp(), steps, eta=eta, exact=self.exact)

    def with_grad(self) -> GaussianMixtureSampler:
        """This sampler: gradients always flow through its `advance` and `decode`."""
        return self

    @property
    def extent(self) -> float:
        """Half the side of the box that `decode` shows: the largest |mean| coordinate plus six of the largest scale."""
        return float(self.law.means.abs().max() + 6 * self.law.scales.max())

    def marginal(self, step: int) -> GaussianMixture:
        """The law of the diffused mixture at step 0..K: followed if ``exact``, else approached as K grows."""
        return self.law.diffused(*self.levels[self._position(step)])

    def init(self, seeds: Sequence[int]) -> Particles:
        """Pure noise at step 0, one particle per seed; latents are (N, D)."""
        streams = check_seeds(seeds)
        dimension = self.law.means.shape[-1]
        return Particles(self._like(initial_noise(streams, (dimension,), dtype=torch.float64)), step=0, streams=streams)

    def advance(self, particles: Particles, to: int) -> Particles:
        """The same particles at step `to`, with step <= to <= K; costs to − step NFE per particle.

        Raises:
            PipelineError: `to` lies behind the particles, or beyond K.
        """
        if self._position(to) < particles.step:
            raise PipelineError(f"Particles at step {particles.step} cannot advance back to {to}; renoise goes back.")
        for step in range(particles.step, to):
            particles = self._step(particles, step)
        return particles

    def renoise(self, particles: Particles, to: int, seed: int) -> Particles:
        """Diffuse forward to step `to` < step, with noise that depends on the seed, the stream and `to`.

        The streams are new: the old ones' noise is already part of the latents that are diffused.

        Raises:
            PipelineError: `to` does not lie before the particles.
        """
        if self._position(to) >= particles.step:
            raise PipelineError(
                f"Particles at step {particles.step} can be renoised to an earlier step only, not to {to}."
            )
        keys = tuple(derive("renoise", seed, stream, to) for stream in particles.streams)
        noise = self._like(initial_noise(keys, particles.latents.shape[1:], dtype=torch.float64))
        latents = forward(particles.latents, noise, now=self.levels[particles.step], then=self.levels[to])
        return Particles(latents, step=to, streams=tuple(derive("stream", key) for key in keys), memory=EMPTY)

    def decode(self, particles: Particles) -> Images:
        """Points as pictures (N, 3, 1, D): one grey pixel per coordinate, ½ + x/(2·extent), clamped to [0, 1]; float32.

        Points inside the box [−extent, extent]^D come back through `points`. Unfinished particles show x0, and fresh
        noise, of which there is no estimate yet, shows the mean of the law, which is its exact x0.
        """
        clean = particles.latents
        if particles.step < self.steps:
            clean = self.law.mean.expand_as(clean) if particles.x0 is None else particles.x0
        pixels = (0.5 + clean / (2 * self.extent)).clamp(0, 1).float()  # (N, D)
        return pixels[:, None, None, :].expand(-1, 3, 1, -1)

    def points(self, images: Images) -> Tensor:
        """The points (N, D) that pictures of `decode` show, to float32 precision of the box."""
        return (self._like(images[:, 0, 0, :]) - 0.5) * (2 * self.extent)

    def _step(self, particles: Particles, step: int) -> Particles:
        """One step of the kernel, with x0 the posterior mean or, if exact, a posterior draw."""
        now, then = self.levels[step], self.levels[step + 1]
        posterior = self.law.posterior(particles.latents, *now)  # N mixtures
        x0 = posterior.mean  # (N, D)
        clean = self._draw(posterior, particles.streams, step) if self.exact else x0
        noise, rho = torch.zeros_like(x0), torch.ones_like(now.sigma)
        if self.eta.acts(step):
            noise, rho = self._like(step_noise(particles.streams, step, x0.shape[1:])), self.eta.rho(now, then)
        latents = transition(particles.latents, clean, noise, now=now, then=then, rho=rho)
        return replace(particles, latents=latents, step=step + 1, x0=x0)

    def _draw(self, law: GaussianMixture, streams: tuple[int, ...], step: int) -> Tensor:
        """One point (N, D) from each of N mixtures, by the noise of (stream, step)."""
        noise = self._like(step_noise(streams, step, (law.means.shape[-1] + 1,), draw=1))
        uniform = torch.special.ndtr(noise[:, :1])  # (N, 1)
        index = (law.log_weights.exp().cumsum(dim=-1) < uniform).sum(dim=-1).clamp(max=law.means.shape[-2] - 1)  # (N,)
        rows = torch.arange(len(streams), device=index.device)
        return law.means[rows, index] + law.scales[rows, index, None] * noise[:, 1:]

    def _position(self, step: int) -> int:
        if not 0 <= step <= self.steps:
            raise PipelineError(f"This sampler has the steps 0 to {self.steps}, but got {step}.")
        return step

    def _like(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.law.means)


def _mixture(means: Points, scales: Floats, weights: Floats) -> GaussianMixture:
    """Check and normalise what the user gave."""
    centres = means if isinstance(means, Tensor) else torch.tensor(means, dtype=torch.float64)
    if centres.ndim != 2 or centres.numel() == 0 or not centres.is_floating_point():
        raise PipelineError(
            f"The means of a mixture are floats of shape (M, D), but got the shape {tuple(centres.shape)}."
        )
    spread, share = (torch.as_tensor(values).to(centres) for values in (scales, weights))
    for name, values in (("scales", spread), ("weights", share)):
        if values.shape != centres.shape[:1] or not bool((values > 0).all() and values.isfinite().all()):
            raise PipelineError(
                f"A mixture of {len(centres)} components needs as many positive {name}, but got {values.tolist()}."
            )
    return GaussianMixture(centres, spread, (share / share.sum()).log())
