"""The heads of the published checkpoints on top of a backbone: SkipCA or none, then one number or a vector.

    u = W_kᵀ W_q h / sqrt(H),    a = softmax(E_v u),    h' = RMSNorm(h + W_v E_vᵀ a),    output = W h'

which is SkipCA (`head.py`) with its key and value matrices moved to the side of the one row that asks: the same
function at a fraction of the work. The quirks of the published code are then only a matter of which E_v count.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rewards.errors import CheckpointError
from rewards.llava.backbone import Sight
from rewards.llava.head import RMSNorm
from rewards.llava.weights import usable


class PublishedHead(nn.Module):
    """Head of the published checkpoints; parameter names are theirs.

    Args:
        width: H of the language model.
        outputs: 1 for Bradley-Terry and classification, an even number for general preference.
        skipca: whether it looks back at the visual tokens.
        eps: of its norm.
    """

    def __init__(self, width: int, outputs: int, *, skipca: bool, eps: float) -> None:
        super().__init__()
        self.skipca = skipca
        if skipca:
            self.W_q = nn.Linear(width, width, bias=False)
            self.W_k = nn.Linear(width, width, bias=False)
            self.W_v = nn.Linear(width, width, bias=False)
            self.ca_layernorm = RMSNorm(width, eps)
        self.value_head = nn.Linear(width, outputs, bias=False)

    def forward(self, states: Tensor, sight: Sight) -> Tensor:
        """Outputs (B, R, d) of states (B, R, H)."""
        with torch.autocast(states.device.type, enabled=False):  # scores differ by less than a trainer's bfloat16 keeps
            outputs: Tensor = self.value_head(self.refine(states, sight))
        return outputs

    def refine(self, states: Tensor, sight: Sight) -> Tensor:
        """What the last matrix is given, (B, R, H): the states themselves without SkipCA."""
        states = states.to(self.value_head.weight)
        if not self.skipca:
            return states
        refined: Tensor = self.ca_layernorm(states + self._seen(states, sight))
        return refined

    def _seen(self, states: Tensor, sight: Sight) -> Tensor:
        visual = sight.tokens.to(states)  # (B, V, H), or of one picture (V, H)
        visual = visual[0] if len(visual) == 1 else visual
        asked = self.W_q(states) @ self.W_k.weight / states.shape[-1] ** 0.5  # (B, R, H)
        logits = (asked @ visual.mT).masked_fill(~sight.mask.to(states.device)[:, None], -torch.inf)  # (B, R, V)
        weights = logits.softmax(dim=-1).nan_to_num()  # a row with nothing to look at sees nothing
        seen: Tensor = self.W_v(weights @ visual)
        return seen


def build_head(state: Mapping[str, Tensor], eps: float, *, dtype: torch.dtype = torch.float32) -> PublishedHead:
    """A head from its parameters, with SkipCA if they hold one.

    Raises:
        CheckpointError: one is missing, has another shape, or is not finite.
    """
    check_head(state)
    outputs, width = state["value_head.weight"].shape
    head = PublishedHead(width, outputs, skipca="W_q.weight" in state, eps=eps)
    head.load_state_dict({name: state[name] for name in head.state_dict()})
    return head.to(dtype).eval().requires_grad_(False)


def check_head(state: Mapping[str, Tensor], where: Path | str = "the head") -> None:
    """Raise `CheckpointError` unless `state` holds all parameters of a head, of matching shapes, all finite."""
    last = state.get("value_head.weight")
    if last is None or last.ndim != 2:
        found = ", ".join(sorted(state)) if last is None else f"'value_head.weight' of shape {tuple(last.shape)}"
        raise CheckpointError(f"The weights in {where} hold {found}; expected 'value_head.weight' (d, H).")
    width = last.shape[1]
    square = {f"{name}.weight": (width, width) for name in ("W_q", "W_k", "W_v")}
    skipca = {**square, "ca_layernorm.weight": (width,)} if state.keys() & square.keys() else {}
    for name, shape in {"value_head.weight": tuple(last.shape), **skipca}.items():
        if name not in state or state[name].shape != shape:
            there = tuple(state[name].shape) if name in state else "nothing"
            raise CheckpointError(f"The head's {name!r} in {where} is {there}; expected shape {shape}.")
        usable(state[name], name, where)


def pool_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean (B, H) of values (B, L, H) over the true positions of `mask` (B, L), all tokens included."""
    weights = mask.to(values)[..., None]
    return (weights * values).sum(dim=1) / weights.sum(dim=1)


def win_probabilities(outputs: Tensor, tau: float, *, others: Tensor | None = None, bfloat16: bool = False) -> Tensor:
    """P[i, j] = sigmoid(s(i, j) / tau), the probability that candidate i is preferred to j.

    With one output s is the difference; with an even number d of them, as trained for general preference,
    s(i, j) = sum over k of  v_i[2k] v_j[2k + 1] − v_i[2k + 1] v_j[2k], which need not be transitive.

    Args:
        outputs: (N, d) of the head.
        tau: of the checkpoint.
        others: (M, d) to compare with; `outputs` themselves if None.
        bfloat16: round outputs and every intermediate result as the published code does, which makes ties.

    Returns:
        (N, M) float32; (N, N) with one half on the diagonal.
    """
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    v, w = outputs.to(dtype), (outputs if others is None else others).to(dtype)
    s = v - w.T if v.shape[1] == 1 else (v[:, None, 0::2] * w[:, 1::2] - v[:, None, 1::2] * w[:, 0::2]).sum(-1)
    return (s / tau).sigmoid().float()
