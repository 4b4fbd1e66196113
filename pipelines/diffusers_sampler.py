"""Any stock text-to-image pipeline as a sampler that one can stop, look at, branch and resume.

The pipeline's own `__call__` runs unchanged. Only its scheduler is replaced, for the call, by a windowed one:

    init      the empty window [0, 0), output latents: the pipeline makes its own noise, packing and scaling
    advance   the window [a, b), latents in, latents out
    decode    the empty window [K, K), latents in, pixels out

so nothing here knows a model family. Steps are the scheduler's own unless `eta` asks for fresh noise.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipelines.batch_invariant import batch_invariant as invariant_to_batch
from pipelines.errors import NotFinite, PipelineError, UnsupportedScheduler
from pipelines.evaluations import Evaluations
from pipelines.foreign import private_copy
from pipelines.gradients import check_attached, differentiable, recomputed, undecorated
from pipelines.microbatch import MicroBatches
from pipelines.noise import check_seeds, derive, generators, step_noise
from pipelines.options import Options
from pipelines.particles import Particles
from pipelines.sampler import Images
from pipelines.schedule import NoiseSchedule, check_position
from pipelines.stochastic import stochastic_steps
from pipelines.transition import Eta
from pipelines.window import Window, windowed


class DiffusersSampler:
    """A stock diffusers pipeline, bound to one prompt, as a `Sampler`.

    Args:
        pipe: any text-to-image (or text-to-video) pipeline; it is not changed.
        steps: K, at least 1.
        prompt: the text.
        batch_size: at most so many particles in one call of the model; all of them by default. Halved, and kept
            halved, when memory runs out.
        preview_decoder: a small decoder (`AutoencoderTiny`) that replaces the VAE for unfinished particles.
        batch_invariant: make every particle's numbers the same to the bit whatever its batch; see
            `pipelines.batch_invariant`. By default a batch equals the stock pipeline's batch.
        eta: fresh noise in each step, seeded per particle, on any scheduler. 0, the default, leaves the scheduler's own
            steps as they are. A number up to 1 is DDIM's eta for the whole run, 1 being DDPM or Euler ancestral; an
            `Eta` names a window of steps and other kinds of noise. Takes the place of a pipeline's own option `eta`.
        **call: options of the pipeline's own call, such as `guidance_scale`, `negative_prompt`, `height`, `width`.

    Attributes:
        on_nfe: called at each step with the number of NFE just spent; set it to the `update` of a progress bar.

    Raises:
        PipelineError: an option that the pipeline does not have, or that the sampler itself must set; an eta out of
            range.
    """

    def __init__(
        self,
        pipe: Any,  # noqa: ANN401 - diffusers has no types
        *,
        steps: int,
        prompt: str,
        batch_size: int | None = None,
        preview_decoder: torch.nn.Module | None = None,
        batch_invariant: bool = False,
        eta: float | Eta = 0.0,
        **call: object,
    ) -> None:
        if steps < 1:
            raise PipelineError(f"`steps` must be at least 1, but is {steps}.")
        self.steps, self.prompt, self.eta = steps, prompt, Eta.of(eta, steps)
        self.preview_decoder, self.batch_invariant = preview_decoder, batch_invariant
        self.on_nfe: Callable[[int], object] = lambda nfe: None
        self._options = Options(pipe, prompt, call)
        self._batches = MicroBatches(batch_size)
        self._evaluations = Evaluations(pipe)
        self._scheduler = copy.deepcopy(pipe.scheduler)
        self._pipe = private_copy(pipe)
        self._decoder = getattr(pipe, "vae", None)
        self._fresh: Any = None  # the scheduler of the latest `init`, its timesteps set
        self._stochastic_steps: range | None = None
        self._size_checked = False
        self._with_grad = False

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels (alpha_k, sigma_k) of this run, k = 0..K."""
        schedule: NoiseSchedule = self._begun().window.known_schedule
        return schedule

    @property
    def stochastic(self) -> bool:
        """Whether copies of a particle with different streams part on the way: eta > 0, or a scheduler that draws."""
        return len(self.stochastic_steps) > 0

    @property
    def stochastic_steps(self) -> range:
        """The steps at which they part, from the first to the last; tried out on the scheduler once, for 0 NFE."""
        if self._stochastic_steps is None:
            self._stochastic_steps = stochastic_steps(self._pipe, self._begun(), self.eta)
        return self._stochastic_steps

    @property
    def start_scale(self) -> float:
        """The standard deviation of the noise that `init` makes: what the scheduler asks for, where it asks."""
        return float(self._begun().init_noise_sigma) if hasattr(self._scheduler, "init_noise_sigma") else 1.0

    def noise_scale(self, step: int) -> float:
        """The standard deviation of the fresh noise in the latents after the step from position `step`; 0 if none.

        Raises:
            UnsupportedScheduler: the scheduler draws noise of its own there.
        """
        check_position("step", step, 0, self.steps - 1)
        if self.eta.acts(step):
            return float(self.eta.scale(self.schedule.level(step), self.schedule.level(step + 1)))
        if step in self.stochastic_steps:
            raise UnsupportedScheduler(
                f"{type(self._scheduler).__name__} draws noise of its own at step {step}, and does not say how much; "
                "give the sampler an eta above 0, which takes its place."
            )
        return 0.0

    @property
    def nfe(self) -> int:
        """Denoiser evaluations so far, one per particle and step."""
        return self._evaluations.nfe

    @property
    def network_calls(self) -> int:
        """Calls of the network so far, each for a batch of particles, as counted on the network itself."""
        return self._evaluations.calls

    @property
    def evaluations_per_nfe(self) -> float:
        """Rows that the network computed per particle and step so far: 2 where guidance doubles it; 1 before any."""
        return self._evaluations.per_nfe

    def with_grad(self) -> "DiffusersSampler":
        """The same sampler, but gradients flow through `advance` and `decode`, from pictures to latents.

        Memory is bounded: each step keeps its latents and is computed again on the way back, which costs one more
        evaluation that `nfe` does not count. The weights are constants. Results are those of this sampler; with
        `batch_invariant` one particle is computed at a time, the same to the bit.

        >>> sampler = sampler.with_grad()
        >>> noise = sampler.init([0]).latents.requires_grad_()
        >>> images = sampler.decode(sampler.advance(Particles(noise, 0, (0,)), to=sampler.steps))
        >>> images.mean().backward()
        """
        other = copy.copy(self)
        other._with_grad = True
        if self.batch_invariant:
            other._batches = MicroBatches(1)
        return other

    def with_steps(self, steps: int) -> "DiffusersSampler":
        """The same model, prompt and options in another number of steps; a window of eta becomes the whole run."""
        if steps < 1:
            raise PipelineError(f"`steps` must be at least 1, but is {steps}.")
        other = copy.copy(self)
        other.steps, other.eta = steps, Eta(self.eta.value, kind=self.eta.kind)
        other._fresh, other._stochastic_steps = None, None
        return other

    def init(self, seeds: Sequence[int]) -> Particles:
        """Pure noise at step 0, as the stock pipeline draws it for each seed; 0 NFE.

        Raises:
            PipelineError: no or bad seeds, or a call that the pipeline refuses.
            UnsupportedScheduler: the scheduler cannot be run in windows.
            UnsupportedSize: the model cannot make pictures of the size asked for.
        """
        streams = check_seeds(seeds)
        parts = self._batches.run(len(streams), lambda rows: self._init(streams[rows]))
        self._check_size(parts[0])
        return Particles.cat(parts)

    def advance(self, particles: Particles, to: int) -> Particles:
        """The particles at step `to`, after to - step steps of the stock pipeline's loop, 1 NFE per particle each.

        Raises:
            PipelineError: `to` lies before the particles or behind the last step.
            NotFinite: the model gave NaN or infinity.
        """
        check_position("to", to, particles.step, self.steps)
        if to == particles.step:
            return particles
        move = self._advance_with_grad if self._with_grad else self._advance
        return Particles.cat(self._batches.run(len(particles), lambda rows: move(particles[rows], to)))

    def renoise(self, particles: Particles, to: int, seed: int) -> Particles:
        """Diffuse forward from the particles' step to the noise level of an earlier one; 0 NFE.

        The noise is a function of each particle's stream and `seed`, so that order and batch do not matter, and the
        particles get new streams. Particles that share a stream get the same noise: `fork` them first.
        """
        check_position("to", to, 0, particles.step - 1)
        streams = tuple(derive("renoise", stream, seed, to) for stream in particles.streams)
        noise = step_noise(streams, to, particles.latents.shape[1:], draw=-1)
        return Particles(self.schedule.diffuse(particles.latents, noise, particles.step, to), to, streams)

    def decode(self, particles: Particles) -> Images:
        """Pictures (N, 3, H, W), or videos (N, F, 3, H, W), float32 in [0, 1]; 0 NFE.

        Of the latents if the particles are clean, else of their x0, by the preview decoder if there is one.

        Raises:
            PipelineError: particles without an x0, because they have not taken a step since `init` or `renoise`.
        """
        clean = particles.step == self.steps
        latents = particles.latents if clean else particles.x0
        if latents is None:
            raise PipelineError(
                f"Particles at step {particles.step} that have not been advanced since their noise was made have no "
                "estimate of the picture yet; advance them by one step before decoding."
            )
        decoder = None if clean else self.preview_decoder
        look = self._decode_with_grad if self._with_grad else self._decode
        return torch.cat(self._batches.run(len(particles), lambda rows: look(latents[rows], decoder)))

    def _init(self, streams: tuple[int, ...]) -> Particles:
        window = self._window(0, 0)
        latents = self._run(window, len(streams), generator=generators(streams))
        self._fresh = window
        return Particles(latents, 0, streams)

    def _begun(self) -> Any:  # noqa: ANN401
        """The scheduler with the timesteps of this run set, as the pipeline sets them."""
        if self._fresh is None:
            self.init([0])
        return self._fresh

    def _advance(self, particles: Particles, to: int, repeated: bool = False) -> Particles:
        window = self._window(particles.step, to, streams=particles.streams, eta=self.eta, memory=particles.memory)
        with nullcontext() if repeated else self._evaluations.watching() as counted:
            if counted is not None:
                window.window.on_step = lambda n: self._stepped(n, counted)
            latents = self._run(window, len(particles), latents=particles.latents)
        _check_finite(latents, particles.streams, to)
        record: Window = window.window
        return Particles(latents, to, particles.streams, record.x0, record.memory)

    def _advance_with_grad(self, particles: Particles, to: int) -> Particles:
        for step in range(particles.step, to):
            particles = recomputed(partial(self._advance, particles, step + 1))
        return particles

    def _decode_with_grad(self, latents: Tensor, decoder: torch.nn.Module | None) -> Images:
        return recomputed(lambda repeated: self._decode(latents, decoder))

    def _stepped(self, n: int, counted: Callable[[int], None]) -> None:
        counted(n)
        self.on_nfe(n)

    def _decode(self, latents: Tensor, decoder: torch.nn.Module | None) -> Images:
        images = self._run(self._window(self.steps, self.steps), len(latents), decoder, latents=latents)
        return images.float().clamp(0, 1)

    def _window(self, start: int, stop: int, **carried: Any) -> Any:  # noqa: ANN401
        schedule = None if self._fresh is None else self.schedule
        return windowed(self._scheduler, start, stop, steps=self.steps, schedule=schedule, **carried)

    def _run(self, scheduler: Any, n: int, decoder: torch.nn.Module | None = None, **inputs: Any) -> Tensor:  # noqa: ANN401
        """Call the stock pipeline for n particles: latents (n, ...), or pictures from the decoding window [K, K)."""
        decoding, modules = scheduler.window.start == self.steps, self._evaluations.modules
        self._pipe.__dict__.update(scheduler=scheduler, vae=decoder or self._decoder)
        with ExitStack() as around:
            around.enter_context(self._options.refusals())
            if self.batch_invariant:
                around.enter_context(invariant_to_batch(n, modules))
            if self._with_grad:
                around.enter_context(differentiable(self._options.name, [*modules, *filter(None, [decoder])]))
            call = undecorated(self._pipe) if self._with_grad else type(self._pipe).__call__
            result: Tensor = call(
                self._pipe,
                **self._options.for_n(n),
                **inputs,
                num_inference_steps=self.steps,
                output_type="pt" if decoding else "latent",
                return_dict=False,
            )[0]
        if self._with_grad:
            check_attached(result, inputs.get("latents", result), self._options.name)
        return result

    def _check_size(self, particles: Particles) -> None:
        """Decode one particle where the pipeline might silently round the size that was asked for; once."""
        if self._options.needs_size_check() and not self._size_checked:
            self._options.check_size(*self._decode(particles.latents[:1], None).shape[-2:])
        self._size_checked = True


def _check_finite(latents: Tensor, streams: Sequence[int], step: int) -> None:
    bad = [i for i, row in enumerate(latents) if not row.isfinite().all()]
    if bad:
        names = ", ".join(f"{i} (seed or stream {streams[i]})" for i in bad)
        raise NotFinite(
            f"The model gave NaN or infinity on the way to step {step} for particle {names} of {len(latents)}; "
            "try dtype bfloat16 or float32 instead of float16, or fewer degrees of guidance."
        )
