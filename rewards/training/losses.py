"""The losses of LLaVA-Reward, one value per pair or picture, so that any batch is only a sum of them.

With outputs v of the head, the advantage of the chosen over the rejected side is

    s = v_c - v_r                                                            one output: Bradley-Terry
    s = sum over k of  v_c[2k] v_r[2k + 1] - v_c[2k + 1] v_r[2k]             an even number: general preference

and the loss is  -log sigmoid((s - margin) / tau);  a classification has binary cross-entropy of v itself, without tau.

References: Bradley & Terry, Biometrika 39 (1952); Zhang et al., "General Preference Modeling with Preference
Representations for Aligning Language Models" (2024), arXiv:2410.02197; LLaVA-Reward, arXiv:2507.21391, section 3.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Literal["bt", "gpm", "cls"]


def advantages(chosen: Tensor, rejected: Tensor) -> Tensor:
    """How far each chosen side is ahead, (n,), from outputs (n, d) of both; d is 1 or even."""
    if chosen.shape[1] == 1:
        return (chosen - rejected)[:, 0]
    return (chosen[:, 0::2] * rejected[:, 1::2] - chosen[:, 1::2] * rejected[:, 0::2]).sum(1)


def preference_losses(chosen: Tensor, rejected: Tensor, tau: float, margins: Tensor | float = 0.0) -> Tensor:
    """Bradley-Terry or general-preference loss of each pair, (n,).

    Args:
        chosen: outputs (n, d).
        rejected: outputs (n, d).
        tau: temperature above 0.
        margins: by how much each chosen side should be ahead at least, (n,) in the unit of s.
    """
    return -F.logsigmoid((advantages(chosen, rejected) - margins) / tau)


def classification_losses(outputs: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of each picture, (n,), from outputs (n, 1) and labels (n,) in [0, 1]."""
    return F.binary_cross_entropy_with_logits(outputs[:, 0], labels.to(outputs), reduction="none")


def paired_classification_losses(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Cross-entropy of the chosen side as 1 and the rejected one as 0, summed; (n,) from outputs (n, 1)."""
    ones = torch.ones(len(chosen), device=chosen.device)
    return classification_losses(chosen, ones) + classification_losses(rejected, 0 * ones)


def pair_losses(kind: Loss, chosen: Tensor, rejected: Tensor, tau: float, margins: Tensor | float = 0.0) -> Tensor:
    """What each pair costs by the loss `kind`, (n,), from outputs (n, d) of both sides."""
    if kind == "cls":
        return paired_classification_losses(chosen, rejected)
    return preference_losses(chosen, rejected, tau, margins)
