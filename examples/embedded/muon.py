"""Muon for hidden matrices and convolution kernels, AdamW for everything else.

An update of Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) is the momentum, made orthogonal by a
few Newton–Schulz iterations; scaled by 0.2 sqrt(larger side) it has about AdamW's size, so both share one learning rate
(Liu et al., 2025, arXiv:2502.16982).
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 4


class Muon(Optimizer):
    """Momentum with orthogonal updates; parameters have at least two dimensions, the later ones are flattened."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonal(parameter.grad.lerp(momentum, group["momentum"]).flatten(1))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-0.2 * group["lr"] * max(update.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """About U Vᵀ of the singular value decomposition of `matrix`, by Newton–Schulz iterations."""
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def optimizers(model: nn.Module, lr: float, weight_decay: float = 0.01) -> list[Optimizer]:
    """AdamW for vectors, embeddings and the first and last convolution; Muon for the rest."""
    hidden, rest = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            outer = any(word in name for word in ("conv_in", "conv_out", "embed"))
            small = parameter.ndim < 2 or min(parameter.shape[0], parameter[0].numel()) < 8
            (rest if outer or small else hidden).append(parameter)
    adam = AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
    return [adam, Muon(hidden, lr=lr, weight_decay=weight_decay)]
