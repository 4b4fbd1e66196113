"""Pipelines: a model becomes a sampler that one can stop, look at, branch and resume."""
