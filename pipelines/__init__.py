"""Pipelines: a model becomes a sampler that one can stop, look at, branch and resume.

sampler = DiffusersSampler(load_pipeline("embedded"), steps=20, prompt="a red circle", guidance_scale=4.0)
particles = sampler.advance(sampler.init([0, 1, 2]), to=10)
previews = sampler.decode(particles)  # (N, 3, H, W) in [0, 1]
"""

from pipelines.batch_invariant import batch_invariant
from pipelines.conditioning import truncated_prompt
from pipelines.diffusers_sampler import DiffusersSampler
from pipelines.errors import PipelineError
from pipelines.gaussian import GaussianMixtureSampler
from pipelines.loading import LoadOptions, default_call, load_pipeline, load_preview_decoder, model_revision
from pipelines.particles import Particles
from pipelines.sampler import DifferentiableSampler, Sampler
from pipelines.schedulers import with_scheduler
from pipelines.transition import Eta

__all__ = [
    "DifferentiableSampler",
    "DiffusersSampler",
    "Eta",
    "GaussianMixtureSampler",
    "LoadOptions",
    "Particles",
    "PipelineError",
    "Sampler",
    "batch_invariant",
    "default_call",
    "load_pipeline",
    "load_preview_decoder",
    "model_revision",
    "truncated_prompt",
    "with_scheduler",
]
