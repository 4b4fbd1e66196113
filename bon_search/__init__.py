"""Inference-time scaling for diffusion and flow models: spend a budget of candidates, let a reward choose."""
