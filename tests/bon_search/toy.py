"""A sampler whose law is known, and critics on it: what the tests of searches stand on."""

from torch import Tensor

from bon_search.critic import PictureCritic
from bon_search.ledger import Cost, Ledger, MeteredSampler
from bon_search.result import Recipe
from bon_search.run import Run
from bon_search.searches.best_of_n import best_of_n
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.particles import Particles

STEPS = 4


def standard_normal(steps: int = STEPS) -> GaussianMixtureSampler:
    """One Gaussian in one dimension: the end state is a known multiple of the initial noise."""
    return GaussianMixtureSampler([[0.0]], [1.0], [1.0], steps=steps)


def first_coordinate(particles: Particles) -> Tensor:
    """A critic that likes large numbers."""
    return particles.latents[:, 0].float()


class Brightness:
    """A reward on the toy's pictures: the pixel itself; NaN from the `broken`-th call on."""

    name = "toy-brightness"
    absolute = True

    def __init__(self, broken: int | None = None) -> None:
        self.calls = 0
        self.broken = broken

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Mean pixel, (N,)."""
        self.calls += 1
        scores = images.mean(dim=(1, 2, 3))
        return scores * float("nan") if self.broken is not None and self.calls >= self.broken else scores


def recipe(n: int, steps: int = STEPS, **changes: object) -> Recipe:
    """A recipe for the toy."""
    known: dict[str, object] = {
        "prompt": "a point",
        "model": "toy",
        "model_revision": "0123456789abcdef",
        "pipeline": "Toy",
        "scheduler": "DDIMScheduler",
        "reward": "toy-brightness",
        "reward_revision": "",
        "steps": steps,
        "call": {"guidance_scale": 4.0},
        "search": "best_of_n",
        "n": n,
        "seed": 0,
        "batch_invariant": True,
        "lora": None,
        "dtype": "float32",
        "device": "cpu",
        "versions": {"bon-search": "0.1.0"},
    }
    return Recipe(**(known | changes))  # type: ignore[arg-type]


def toy_run(
    n: int, *, batch_size: int | None = None, budget: Cost | None = None, reward: Brightness | None = None
) -> Run:
    """Best-of-N on the toy, metered."""
    ledger = Ledger(budget)
    sampler = MeteredSampler(standard_normal(), ledger)
    critic = PictureCritic(sampler, reward or Brightness(), "a point", ledger)
    return Run(best_of_n(sampler, critic, n=n, batch_size=batch_size), critic, ledger, recipe(n))
