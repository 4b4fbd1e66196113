"""The head of LLaVA-Reward: skip-connection cross-attention (SkipCA) from the last token to the visual tokens.

With h the last hidden state of the end-of-sentence token, after the language model's own final norm, and E_v the visual
tokens as they leave the projector,

    a      = softmax(W_q h · (W_k E_v)ᵀ / sqrt(H))       one head of width H, no mask, no bias
    h'     = RMSNorm(h + a W_v E_v)
    reward = w · h'

Reference: arXiv:2507.21391, section 3, and its published code, which computes all rows of the sequence and reads one;
here only that row is computed, with the same result.
"""

import torch
from torch import Tensor, nn

EPS = 1e-5  # of the published LLaVA and Phi heads


class RMSNorm(nn.Module):
    """x / rms(x) · weight over the last axis, in float32 inside, in the dtype of `x` outside."""

    def __init__(self, width: int, eps: float = EPS) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalised `x`, same shape."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


class SkipCA(nn.Module):
    """The head with SkipCA. Parameter names are those of the published checkpoints' parts."""

    def __init__(self, width: int, eps: float = EPS) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.ca_layernorm = RMSNorm(width, eps)
        self.value_head = nn.Linear(width, 1, bias=False)
        for linear in (self.q_proj, self.k_proj, self.v_proj, self.value_head):
            nn.init.normal_(linear.weight, std=1 / (width + 1))

    def forward(self, last: Tensor, visual: Tensor) -> Tensor:
        """Scores (N,) from the last token's states (N, H) and the visual tokens (N, V, H)."""
        query = self.q_proj(last)[:, None]  # (N, 1, H)
        logits = query @ self.k_proj(visual).mT / query.shape[-1] ** 0.5  # (N, 1, V)
        seen = logits.softmax(-1) @ self.v_proj(visual)  # (N, 1, H)
        score: Tensor = self.value_head(self.ca_layernorm(last + seen[:, 0]))
        return score[:, 0]


class Linear(nn.Module):
    """The head without SkipCA: the last token alone, as the paper's ablation has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value_head = nn.Linear(width, 1, bias=False)
        nn.init.normal_(self.value_head.weight, std=1 / (width + 1))

    def forward(self, last: Tensor, visual: Tensor) -> Tensor:
        """Scores (N,) from the last token's states (N, H); `visual` is not looked at."""
        score: Tensor = self.value_head(last)
        return score[:, 0]
