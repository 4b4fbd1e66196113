"""The Gaussian toy against numbers known without it: quadrature, closed forms, and Monte-Carlo error bars."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from pipelines.errors import PipelineError
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.mixture import GaussianMixture
from pipelines.particles import Particles
from pipelines.testing import check_sampler
from pipelines.transition import Eta

MEANS = [[-2.0, 0.5], [1.0, 1.5], [2.5, -1.0]]
SCALES = [0.4, 0.8, 0.6]
WEIGHTS = [0.5, 0.3, 0.2]
MANY = 3000

SAMPLERS = {
    "ddim": GaussianMixtureSampler(MEANS, SCALES, WEIGHTS, 6),
    "eta": GaussianMixtureSampler(MEANS, SCALES, WEIGHTS, 6, eta=0.7),
    "exact": GaussianMixtureSampler(MEANS, SCALES, WEIGHTS, 6, exact=True),
    "exact, eta": GaussianMixtureSampler(MEANS, SCALES, WEIGHTS, 6, eta=1.0, exact=True),
}
every = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
exact = pytest.mark.parametrize("sampler", [SAMPLERS["exact"], SAMPLERS["exact, eta"]], ids=["eta=0", "eta=1"])


def assert_follows(points: Tensor, law: GaussianMixture) -> None:
    """Mean and covariance within five standard errors, and the Kolmogorov-Smirnov distance of three projections."""
    count = len(points)
    error = law.covariance.diagonal().sqrt() / math.sqrt(count)
    assert ((points.mean(0) - law.mean).abs() < 5 * error).all()
    apart = points - law.mean
    products = apart[:, :, None] * apart[:, None, :]  # (N, D, D)
    assert ((products.mean(0) - law.covariance).abs() < 5 * products.std(0) / math.sqrt(count)).all()
    for direction in torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, -0.6]], dtype=points.dtype):
        values = (points @ direction).sort().values
        ranks = torch.arange(1, count + 1, dtype=points.dtype) / count
        distance = (law.project(direction).cdf(values) - ranks).abs().max()
        assert distance < 2.2 / math.sqrt(count)  # passed by a true sample with probability 0.9999


def line(law: GaussianMixture) -> Tensor:
    """A grid (L,) that holds a mixture on R^1 with all its mass."""
    reach = float(law.means.abs().max() + 12 * law.scales.max())
    return torch.linspace(-reach, reach, 200_001, dtype=torch.float64)


@exact
@pytest.mark.parametrize("step", [1, 4, 6])
def test_exact_steps_follow_the_marginal_at_each_step(sampler: GaussianMixtureSampler, step: int) -> None:
    particles = sampler.advance(sampler.init(range(MANY)), to=step)
    assert_follows(particles.latents, sampler.marginal(step))


def test_the_last_marginal_is_the_law_and_the_first_is_standard_normal() -> None:
    sampler = SAMPLERS["exact"]
    points = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(0, 1).log_prob(points).sum(-1)
    torch.testing.assert_close(sampler.marginal(0).log_prob(points), normal)
    torch.testing.assert_close(sampler.marginal(6).log_prob(points), sampler.law.log_prob(points))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_and_ddpm_reach_the_law_with_many_steps(eta: float) -> None:
    sampler = GaussianMixtureSampler(MEANS, SCALES, WEIGHTS, 150, eta=eta)
    assert_follows(sampler.advance(sampler.init(range(1000)), to=150).latents, sampler.law)


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_ddim_on_one_standard_gaussian_shrinks_by_the_known_factor(steps: int) -> None:
    sampler = GaussianMixtureSampler([[0.0]], [1.0], [1.0], steps)
    start = sampler.init(range(5))
    end = sampler.advance(start, to=steps)
    torch.testing.assert_close(end.latents, start.latents * math.cos(math.pi / (2 * steps)) ** steps)


ETAS = [Eta(0.6), Eta(1.0), Eta(0.5, kind="cps"), Eta(0.7, kind="flow-grpo"), Eta(2.0, kind="rbf"), Eta(1.0, 1, 3)]


@pytest.mark.parametrize("steps", [5, 10, 50])
@pytest.mark.parametrize("eta", ETAS, ids=str)
def test_the_variance_of_stochastic_steps_is_that_of_its_recursion(eta: Eta, steps: int) -> None:
    """For N(m, s²) the posterior mean is linear in x, so mean and variance of each state are known exactly.

    The variance of the sample is within 5 standard errors of it. As s falls to 0 the end is m, with no noise left over.
    """
    mean, scale = 0.8, 0.5
    variance, centre = 1.0, 0.0
    levels = [(math.sin(math.pi * k / (2 * steps)), math.cos(math.pi * k / (2 * steps))) for k in range(steps + 1)]
    sampler = GaussianMixtureSampler([[mean] * 100], [scale], [1.0], steps, eta=eta)  # 100 independent coordinates
    for k, ((alpha, sigma), (next_alpha, next_sigma)) in enumerate(itertools.pairwise(levels)):
        rho = float(eta.rho(sampler.levels[k], sampler.levels[k + 1])) if eta.acts(k) else 1.0
        gain = alpha * scale**2 / (alpha**2 * scale**2 + sigma**2)  # x0 = mean + gain·(x − alpha·mean)
        slope = next_alpha * gain + next_sigma * rho * (1 - alpha * gain) / sigma
        centre = next_alpha * mean + slope * (centre - alpha * mean)
        variance = slope**2 * variance + next_sigma**2 * (1 - rho**2)
    points = sampler.advance(sampler.init(range(40)), to=steps).latents
    count = points.numel()
    assert points.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / count))
    assert points.mean() == pytest.approx(centre, abs=5 * math.sqrt(variance / count))
    sharp = GaussianMixtureSampler([[mean]], [1e-6], [1.0], steps, eta=eta)
    assert (sharp.advance(sharp.init(range(20)), to=steps).latents - mean).abs().max() < 1e-5


@pytest.mark.parametrize("steps", [5, 10, 50])
@pytest.mark.parametrize("eta", ETAS, ids=str)
def test_exact_steps_of_any_kind_end_in_the_law(eta: Eta, steps: int) -> None:
    sampler = GaussianMixtureSampler(MEANS, SCALES, WEIGHTS, steps, eta=eta, exact=True)
    assert_follows(sampler.advance(sampler.init(range(2000 // steps)), to=steps).latents, sampler.law)


def test_stochastic_steps_are_those_at_which_forks_can_part() -> None:
    for eta, expected in [(0.0, range(0)), (0.5, range(5)), (Eta(0.5, 2, 4), range(2, 4)), (Eta(0.5, 4), range(4, 5))]:
        sampler = GaussianMixtureSampler(MEANS, SCALES, WEIGHTS, 6, eta=eta)
        assert sampler.stochastic_steps == expected
        assert sampler.stochastic == (eta != 0.0)
        for step in range(6):
            particles = sampler.advance(sampler.init([0]), to=step).fork([0, 0])
            first, second = sampler.advance(particles, to=6).latents
            assert torch.equal(first, second) == (step >= expected.stop)
    assert SAMPLERS["exact"].stochastic_steps == range(6)


def test_the_scale_of_the_fresh_noise() -> None:
    """DDPM's: sigma'·sqrt(1 − rho_D²), with the levels sin and cos of the angle; none on the last step."""
    sampler = GaussianMixtureSampler(MEANS, SCALES, WEIGHTS, 4, eta=Eta(1.0, 1))
    now, then = math.pi / 8, math.pi / 4
    rho = math.sin(now) * math.cos(then) / (math.sin(then) * math.cos(now))
    assert sampler.noise_scale(1) == pytest.approx(math.cos(then) * math.sqrt(1 - rho**2))
    assert sampler.noise_scale(0) == sampler.noise_scale(3) == 0
    with pytest.raises(PipelineError, match="exact sampler are mixtures"):
        SAMPLERS["exact"].noise_scale(0)


@every
def test_x0_is_the_posterior_mean_of_the_state_one_step_before(sampler: GaussianMixtureSampler) -> None:
    flat = GaussianMixtureSampler([[-2.0], [1.0]], [0.4, 0.8], [0.7, 0.3], 6, eta=sampler.eta, exact=sampler.exact)
    before = flat.advance(flat.init(range(4)), to=3)
    after = flat.advance(before, to=4)
    alpha, sigma = math.sin(math.pi / 4), math.cos(math.pi / 4)
    grid = line(flat.law)
    prior = sum(
        weight / scale * torch.exp(-((grid - mean) ** 2) / (2 * scale**2))
        for mean, scale, weight in [(-2.0, 0.4, 0.7), (1.0, 0.8, 0.3)]
    )
    for x, x0 in zip(before.latents[:, 0], after.x0[:, 0], strict=True):
        density = prior * torch.exp(-((x - alpha * grid) ** 2) / (2 * sigma**2))
        expected = torch.trapezoid(grid * density, grid) / torch.trapezoid(density, grid)
        torch.testing.assert_close(x0, expected, rtol=1e-6, atol=1e-8)


@every
def test_the_contract_kit_passes(sampler: GaussianMixtureSampler) -> None:
    check_sampler(sampler)


@every
def test_splitting_a_run_changes_nothing(sampler: GaussianMixtureSampler) -> None:
    start = sampler.init([3, 1, 4])
    whole = sampler.advance(start, to=6)
    split = start
    for step in (2, 2, 3, 6):
        split = sampler.advance(split, to=step)
    assert torch.equal(split.latents, whole.latents)
    assert torch.equal(split.x0, whole.x0)
    assert split.streams == whole.streams
    assert split.step == 6


@every
def test_order_and_company_change_nothing(sampler: GaussianMixtureSampler) -> None:
    start = sampler.advance(sampler.init([3, 1, 4]), to=2)
    together = sampler.advance(start, to=6)
    shuffled = sampler.advance(start[[2, 0, 0]], to=6)
    assert torch.equal(shuffled.latents, together[[2, 0, 0]].latents)
    alone = sampler.advance(sampler.init([1]), to=6)
    assert torch.equal(alone.latents, together[[1]].latents)


@every
def test_forks_part_exactly_if_the_sampler_is_stochastic(sampler: GaussianMixtureSampler) -> None:
    parent = sampler.advance(sampler.init([7]), to=3)
    first, second = sampler.advance(parent.fork([0, 0]), to=6).latents
    unforked, _ = sampler.advance(parent[[0, 0]], to=6).latents
    assert torch.equal(first, unforked)
    assert torch.equal(first, second) != sampler.stochastic


@exact
@pytest.mark.parametrize(("start", "to"), [(6, 2), (4, 1), (6, 0)])
def test_renoise_lands_on_the_marginal_and_its_rerun_on_the_law(
    sampler: GaussianMixtureSampler, start: int, to: int
) -> None:
    before = sampler.advance(sampler.init(range(MANY)), to=start)
    after = sampler.renoise(before, to=to, seed=0)
    assert (after.step, after.x0) == (to, None)
    assert_follows(after.latents, sampler.marginal(to))
    assert_follows(sampler.advance(after, to=6).latents, sampler.law)


def test_renoise_correlates_as_the_forward_kernel_says() -> None:
    sampler = GaussianMixtureSampler([[0.0, 0.0]], [1.0], [1.0], 4, exact=True)
    before = sampler.advance(sampler.init(range(MANY)), to=4)
    after = sampler.renoise(before, to=1, seed=5).latents
    kept = (before.latents * after).mean(0)  # E[x_4·x_1] = alpha_1
    assert kept.tolist() == pytest.approx([math.sin(math.pi / 8)] * 2, abs=5 / math.sqrt(MANY))


def test_renoising_depends_on_the_seed_and_the_particle_and_nothing_else() -> None:
    sampler = SAMPLERS["exact"]
    particles = sampler.advance(sampler.init([0, 1, 2]), to=4)
    one, same, other = (sampler.renoise(particles, to=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.latents, same.latents)
    assert one.streams == same.streams
    assert not torch.isclose(one.latents, other.latents).any()
    assert not set(one.streams) & (set(particles.streams) | set(other.streams))
    assert torch.equal(sampler.renoise(particles[[2, 0]], to=2, seed=0).latents, one[[2, 0]].latents)


def test_the_deterministic_run_is_differentiable_to_the_noise() -> None:
    sampler = SAMPLERS["ddim"]
    start = sampler.init([0])

    def run(noise: Tensor) -> Tensor:
        return sampler.advance(Particles(noise, 0, start.streams), to=6).latents

    assert torch.autograd.gradcheck(run, start.latents.requires_grad_(True))


def test_decode_shows_points_that_can_be_read_back() -> None:
    sampler = SAMPLERS["exact"]
    clean = sampler.advance(sampler.init(range(20)), to=6)
    images = sampler.decode(clean)
    assert images.shape == (20, 3, 1, 2)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    torch.testing.assert_close(sampler.points(images), clean.latents, rtol=0, atol=2 * sampler.extent * 1e-7)
    middle = sampler.advance(sampler.init(range(20)), to=3)
    torch.testing.assert_close(sampler.points(sampler.decode(middle)), middle.x0, rtol=0, atol=2e-6)
    fresh = sampler.points(sampler.decode(sampler.init([0])))
    torch.testing.assert_close(fresh[0], sampler.law.mean, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("slope", "curvature"), [(0.0, 0.0), (1.3, 0.0), (-0.4, 2.5), (4.0, 0.5)])
def test_tilts_agree_with_quadrature(slope: float, curvature: float) -> None:
    law = GaussianMixtureSampler([[-2.0], [1.0]], [0.4, 0.8], [0.7, 0.3], 1).law
    tilt = law.tilt(torch.tensor([slope], dtype=torch.float64), curvature)
    grid = line(law)
    density = (law.log_prob(grid[:, None]) + slope * grid - curvature / 2 * grid**2).exp()
    evidence = torch.trapezoid(density, grid)
    mean = torch.trapezoid(grid * density, grid) / evidence
    variance = torch.trapezoid((grid - mean) ** 2 * density, grid) / evidence
    torch.testing.assert_close(tilt.log_evidence, evidence.log())
    torch.testing.assert_close(tilt.law.mean[0], mean)
    torch.testing.assert_close(tilt.law.covariance[0, 0], variance)
    torch.testing.assert_close(tilt.law.log_prob(grid[:, None]).exp(), density / evidence)
    below = torch.cumulative_trapezoid(density / evidence, grid)
    torch.testing.assert_close(tilt.law.cdf(grid[1:]), below, rtol=0, atol=1e-7)


def test_a_tilt_in_the_plane_is_the_reweighted_sample() -> None:
    sampler = SAMPLERS["exact"]
    linear = torch.tensor([0.5, -1.0], dtype=torch.float64)
    points = sampler.advance(sampler.init(range(MANY)), to=6).latents
    weights = (points @ linear - 0.5 * points.square().sum(-1)).exp()
    tilt = sampler.law.tilt(linear, 1.0)
    error = weights.std() / weights.mean() / math.sqrt(MANY)
    assert weights.mean().log() == pytest.approx(float(tilt.log_evidence), abs=5 * float(error))
    residual = weights[:, None] * (points - tilt.law.mean)  # its mean is zero
    assert (residual.mean(0).abs() < 5 * residual.std(0) / math.sqrt(MANY)).all()


def test_init_is_the_seeds_own_noise() -> None:
    latents = SAMPLERS["ddim"].init([5, 9]).latents
    own = torch.randn(2, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    assert torch.equal(latents[1], own)


def test_dtype_follows_the_input() -> None:
    sampler = GaussianMixtureSampler(torch.tensor(MEANS), SCALES, WEIGHTS, 3, exact=True)
    particles = sampler.advance(sampler.init([0, 1]), to=3)
    assert particles.latents.dtype == particles.x0.dtype == torch.float32


def test_requests_that_make_no_sense_are_refused_with_a_sentence() -> None:
    sampler = SAMPLERS["ddim"]
    middle = sampler.advance(sampler.init([0]), to=3)
    with pytest.raises(PipelineError, match="renoise goes back"):
        sampler.advance(middle, to=2)
    with pytest.raises(PipelineError, match="steps 0 to 6, but got 7"):
        sampler.advance(middle, to=7)
    with pytest.raises(PipelineError, match="earlier step only, not to 3"):
        sampler.renoise(middle, to=3, seed=0)
    with pytest.raises(PipelineError, match="at least 1, but got 0"):
        GaussianMixtureSampler(MEANS, SCALES, WEIGHTS, 0)
    with pytest.raises(PipelineError, match=r"eta of ddim must be between 0 .* but is 1\.5"):
        GaussianMixtureSampler(MEANS, SCALES, WEIGHTS, 2, eta=1.5)
    with pytest.raises(PipelineError, match="as many positive scales"):
        GaussianMixtureSampler(MEANS, [0.1, 0.2], WEIGHTS, 2)
    with pytest.raises(PipelineError, match="as many positive weights"):
        GaussianMixtureSampler(MEANS, SCALES, [0.5, 0.5, 0.0], 2)
    with pytest.raises(PipelineError, match=r"\(M, D\), but got the shape \(2,\)"):
        GaussianMixtureSampler(torch.zeros(2), SCALES, WEIGHTS, 2)
