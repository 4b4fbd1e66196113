"""Scores of made-up candidates on their way, from a law that is known."""

import torch
from torch import Tensor

from bon_search.calibrate import Previews

STEPS = 20
SHARES = (0.3, 0.6)
SPREADS = (0.6, 0.64, 0.48)  # of the parts; their squares add up to 1


def normal_previews(prompts: int, candidates: int, seed: int = 0, *, ceiling: float | None = None) -> Previews:
    """w_j = the sum of parts up to j; a prompt draws its mean (deviation 1) and its scale (deviation 0.3 of the log).

    Args:
        prompts: P.
        candidates: M.
        seed: Of all.
        ceiling: Scores are ceiling − exp(−w / 2); w itself if None.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    scale = (0.3 * normal(prompts, 1, 1)).exp()
    parts = normal(prompts, candidates, 3) * torch.tensor(SPREADS, dtype=torch.float64) * scale
    w = parts.cumsum(dim=-1) + normal(prompts, 1, 1)
    return Previews(w if ceiling is None else ceiling - (-w / 2).exp(), SHARES, STEPS, 0.12)
