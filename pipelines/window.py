"""A scheduler that runs a slice of its steps, and keeps a record of what happened.

`windowed` gives an instance of a subclass of the scheduler's own class, so that a stock pipeline cannot tell the
difference: it sees as many timesteps as the window has, and everything it asks the scheduler is answered for the right
place in the full run. Two things make a split run equal to an unsplit one:

* the solver's memory, which is found generically: whatever `step` changed on the scheduler since `set_timesteps`;
* the noise of stochastic steps, which is a function of (stream, step), even where a pipeline passes no generator.

Where `eta` acts, the step that the scheduler proposes is replaced by the transition kernel (`transition.py`), around
the x0 that the scheduler finds. A multistep solver then starts afresh, as it does after renoising: what it remembers
belongs to a path that the fresh noise has left (the corrector of UniPC would even take the noise back).
"""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pipelines.errors import PipelineError
from pipelines.noise import step_noise
from pipelines.particles import EMPTY, SolverMemory
from pipelines.schedule import NoiseSchedule, check_steps, read_schedule
from pipelines.solver import StepNoise, collect, restore, snapshot, unpack
from pipelines.transition import Eta, transition

INNER = ("scale_model_input", "index_for_timestep", "add_noise", "scale_noise")
OFFERED = ("pred_original_sample", "denoised")
STOCK = Eta(0.0)
"""No step but the scheduler's own."""


@dataclass
class Window:
    """The part [start, stop) of a run of `steps` steps, and what was seen while it ran.

    Attributes:
        start: first step.
        stop: one past the last step; 0 for the fresh window that only makes the initial noise.
        steps: K of the full run.
        streams: (N,) keys of the particles' noise.
        eta: which steps draw fresh noise instead of being the scheduler's own, and how much.
        memory: the solver's history, before the window and, once it has run, after it.
        done: steps taken so far in this window.
        nfe: denoiser evaluations so far, summed over particles.
        x0: (N, ...) the clean-latent estimate of the last step taken.
        schedule: the noise levels of the full run; read off the scheduler once the timesteps are set, unless given.
        draws: whether the scheduler drew noise in the last step that was watched for it.
        on_step: called at each step, with the number of particles, before the scheduler moves them.
    """

    start: int
    stop: int
    steps: int
    streams: Sequence[int] = ()
    eta: Eta = STOCK
    memory: SolverMemory = EMPTY
    done: int = 0
    nfe: int = 0
    x0: Tensor | None = None
    schedule: NoiseSchedule | None = None
    draws: bool = False
    on_step: Callable[[int], None] = lambda n: None
    before: Mapping[str, object] = field(default_factory=dict)
    inside: bool = False

    @property
    def position(self) -> int:
        """The step of the full run that comes next."""
        return self.start + self.done

    @property
    def known_schedule(self) -> NoiseSchedule:
        """The noise levels, once the timesteps are set."""
        assert self.schedule is not None, "the pipeline stepped before it set the timesteps"
        return self.schedule


def windowed(
    scheduler: Any,  # noqa: ANN401 - diffusers has no types
    start: int,
    stop: int,
    *,
    steps: int,
    streams: Sequence[int] = (),
    eta: Eta = STOCK,
    memory: SolverMemory = EMPTY,
    schedule: NoiseSchedule | None = None,
) -> Any:  # noqa: ANN401 - an instance of a class made at run time
    """A copy of the scheduler that runs the steps start..stop-1 of a run of `steps`; its `window` is the record.

    Raises:
        PipelineError: not 0 <= start <= stop <= steps.
    """
    if not 0 <= start <= stop <= steps:
        raise PipelineError(f"A window needs 0 <= start <= stop <= {steps}, but got [{start}, {stop}).")
    clone = copy.copy(scheduler)
    restore(clone, snapshot(scheduler))
    base: object = type(scheduler)
    clone.__class__ = _windowed_class(base)
    clone.window = Window(start, stop, steps, tuple(streams), eta, memory, schedule=schedule)
    return clone


@functools.lru_cache
def _windowed_class(base: Any) -> Any:  # noqa: ANN401
    """The subclass of a scheduler class; methods keep their signatures, which pipelines inspect."""
    members: dict[str, object] = {
        "__module__": base.__module__,
        "timesteps": _sliced("timesteps", 0),
        "sigmas": _sliced("sigmas", 1),
        "init_noise_sigma": property(
            _init_noise_sigma(base), lambda self, value: _store(self, "init_noise_sigma", value)
        ),
        "set_timesteps": functools.wraps(base.set_timesteps)(_set_timesteps(base)),
        "step": functools.wraps(base.step)(_step(base)),
    }
    for name in INNER:
        if hasattr(base, name):
            members[name] = _inner(getattr(base, name))
    if hasattr(base, "set_begin_index"):
        members["set_begin_index"] = functools.wraps(base.set_begin_index)(_set_begin_index(base))
    return type(base.__name__, (base,), members)


@contextmanager
def _inside(window: Window) -> Iterator[None]:
    """While the scheduler's own code runs, it sees its full run and not the slice."""
    outer, window.inside = window.inside, True
    try:
        yield
    finally:
        window.inside = outer


def _store(scheduler: Any, name: str, value: object) -> None:  # noqa: ANN401
    scheduler.__dict__[name] = value


def _sliced(name: str, extra: int) -> property:
    """An attribute with one entry per step (and `extra` more), of which the pipeline sees those of the window."""

    def read(self: Any) -> object:  # noqa: ANN401
        if name not in self.__dict__:
            raise AttributeError(name)
        value = self.__dict__[name]
        if self.window.inside or len(value) != self.window.steps + extra:
            return value
        return value[self.window.start : self.window.stop + extra]

    return property(read, lambda self, value: _store(self, name, value))


def _init_noise_sigma(base: type) -> Callable[[Any], object]:
    """Latents that come from an earlier window are already scaled: answer 1 unless the run is fresh."""

    def read(self: Any) -> object:  # noqa: ANN401
        if self.window.stop > 0:
            return 1.0
        own = getattr(base, "init_noise_sigma", None)
        with _inside(self.window):
            return own.__get__(self) if isinstance(own, property) else self.__dict__["init_noise_sigma"]

    return read


def _inner(method: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(method)
    def call(self: Any, *args: object, **kwargs: object) -> object:  # noqa: ANN401
        with _inside(self.window):
            return method(self, *args, **kwargs)

    return call


def _set_timesteps(base: Any) -> Callable[..., None]:  # noqa: ANN401
    def set_timesteps(self: Any, *args: object, **kwargs: object) -> None:  # noqa: ANN401
        window: Window = self.window
        with _inside(window):
            base.set_timesteps(self, *args, **kwargs)
            check_steps(self, window.steps, self.timesteps)
            window.schedule = window.schedule or read_schedule(self)
            window.before = snapshot(self)
            for name, value in window.memory.state.items():
                setattr(self, name, unpack(value))
            if window.start > 0 and not window.memory.state and hasattr(base, "set_begin_index"):
                self.set_begin_index(0)

    return set_timesteps


def _set_begin_index(base: Any) -> Callable[..., None]:  # noqa: ANN401
    def set_begin_index(self: Any, begin_index: int = 0) -> None:  # noqa: ANN401
        base.set_begin_index(self, begin_index + self.window.start)
        self.window.before = {**self.window.before, "_begin_index": self._begin_index}

    return set_begin_index


def _step(base: Any) -> Callable[..., object]:  # noqa: ANN401
    signature = inspect.signature(base.step)

    def step(self: Any, *args: object, **kwargs: object) -> object:  # noqa: ANN401
        window: Window = self.window
        call = signature.bind(self, *args, **kwargs)
        call.apply_defaults()
        as_tuple = not call.arguments.get("return_dict", True)
        call.arguments.update({name: None for name in ("generator",) if name in call.arguments})
        call.arguments.update({name: True for name in ("return_dict",) if name in call.arguments})
        sample = call.arguments["sample"]
        window.on_step(len(sample))
        with _inside(window), _guard(window):
            output = base.step(*call.args, **call.kwargs)
        window.x0 = _estimate(self, call.arguments["model_output"], sample, output)
        stochastic = window.eta.acts(window.position)
        if stochastic:
            output.prev_sample = _transition(window, sample, window.x0).to(output.prev_sample.dtype)
        window.nfe += len(sample)
        window.done += 1
        if stochastic:
            _start_afresh(self, window)
        elif window.position == window.stop:
            window.memory = collect(self, window.before, sample)
        return output.to_tuple() if as_tuple else output

    return step


@contextmanager
def _guard(window: Window) -> Iterator[None]:
    """Answer what the step draws by the particles' noise.

    A scheduler that draws nothing in the first step of a window is taken to draw nothing in the rest: looking at each
    operation for noise would take longer than the step.
    """
    if window.done and not window.draws:
        yield
        return
    with StepNoise(window.streams, window.position) as noise:
        yield
    window.draws = noise.draws > 0


def _transition(window: Window, sample: Tensor, x0: Tensor) -> Tensor:
    """The next state (N, ...) by the kernel, float32, with the noise of (stream, step)."""
    schedule, step = window.known_schedule, window.position
    now, then = schedule.level(step), schedule.level(step + 1)
    noise = step_noise(window.streams, step, sample.shape[1:]).to(sample.device)
    return transition(sample.float(), x0.float(), noise, now=now, then=then, rho=window.eta.rho(now, then))


def _start_afresh(scheduler: Any, window: Window) -> None:  # noqa: ANN401
    """Let the solver go on from here as from the start of a run."""
    restore(scheduler, window.before)
    window.memory = EMPTY
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(window.done)


def _estimate(scheduler: Any, model_output: Tensor, sample: Tensor, output: Any) -> Tensor:  # noqa: ANN401
    """The x0 of a step: the scheduler's own where it offers one, else from the table of noise levels."""
    window: Window = scheduler.window
    for name in OFFERED:
        offered = getattr(output, name, None)
        if offered is not None:
            return offered.to(sample.dtype)  # type: ignore[no-any-return]
    if hasattr(scheduler, "precondition_outputs"):  # EDM, whose networks predict a mixture of x0 and noise
        sigma = float(window.known_schedule.sigma[window.position])
        return scheduler.precondition_outputs(sample, model_output, sigma)  # type: ignore[no-any-return]
    return window.known_schedule.x0(sample, model_output, window.position)
