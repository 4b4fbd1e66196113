"""What a search knows about a model: a population can be started, moved, thrown back and looked at."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from torch import Tensor

from pipelines.particles import Particles

Images: TypeAlias = Tensor
"""Pictures (N, 3, H, W), or videos (N, F, 3, H, W): float32 in [0, 1]."""


class Sampler(Protocol):
    """A diffusion or flow model bound to one prompt; it owns neither budget nor progress bar."""

    steps: int
    """K, the number of steps from noise (0) to clean (K)."""

    @property
    def stochastic(self) -> bool:
        """Whether copies of a particle with different streams part on the way: some step draws noise."""
        ...

    @property
    def stochastic_steps(self) -> range:
        """From the first step at which they may part to the last: copies made at step k part if k < its stop."""
        ...

    def init(self, seeds: Sequence[int]) -> Particles:
        """Pure noise at step 0, one particle per seed; costs no network evaluation."""
        ...

    def advance(self, particles: Particles, to: int) -> Particles:
        """The same particles at step `to`, with step <= to <= K; costs to - step NFE per particle."""
        ...

    def renoise(self, particles: Particles, to: int, seed: int) -> Particles:
        """Diffuse forward to the noise level of step `to` < step; costs nothing and forgets x0 and solver memory."""
        ...

    def decode(self, particles: Particles) -> Images:
        """Pictures of x0 if unfinished (a preview), of the latents if clean."""
        ...


class DifferentiableSampler(Sampler, Protocol):
    """A sampler through whose moves gradients can flow, as gradient searches need."""

    def with_grad(self) -> Sampler:
        """The same sampler, whose `advance` and `decode` let gradients flow from pictures back to latents."""
        ...

    @property
    def start_scale(self) -> float:
        """The standard deviation of the noise that `init` makes; times a standard normal it is such noise."""
        ...

    def noise_scale(self, step: int) -> float:
        """The standard deviation of the fresh noise in the latents after the step from position `step`; 0 if none.

        So the step is N(latents − scale·noise, scale²·I), and adding scale·d to the latents moves its noise by d.
        """
        ...
