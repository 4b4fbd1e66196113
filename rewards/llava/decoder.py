"""The decoder of every backbone, walked layer by layer and computed only as far as it is read.

The layers are those of transformers (Phi-3, Llama, Qwen2.5-VL: norm, rotary attention, norm, gated MLP, with
residuals); the walk is ours, so that nothing is kept that nobody asks for, and so that in the last layer only the rows
to be read get a query, an attention output and an MLP, while all rows give keys and values. The numbers are those of
the full pass.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rewards.errors import RewardError
from rewards.llava.backbone import Backbone, Embedded, Foreign

KeyValue: TypeAlias = tuple[Tensor, Tensor]  # (B, heads, P, D) each, the keys rotated
WHOLE = "whole_step"  # method of a layer that `call_whole` prepared


def read(backbone: Backbone, inputs: Embedded, *, rows: Tensor | None = None, layer: int | None = None) -> Tensor:
    """Hidden states (B, R, H) at the positions `rows`.

    Args:
        backbone: gives layers and final norm.
        inputs: what goes into the first layer.
        rows: (B, R) positions in `inputs` to read; None reads all.
        layer: how many layers to run, 0 to one less than all, for their output before the final norm; None runs all of
            them and the norm.

    Raises:
        RewardError: there is no such layer.
    """
    layers = layers_until(backbone.layers, layer)
    mask = visible(inputs.mask, None)
    for block in layers[:-1] if rows is not None else layers:
        inputs = run(block, inputs, mask)
    if rows is not None and layers:
        inputs = run(layers[-1], inputs, visible(inputs.mask, rows), rows=rows)
    elif rows is not None:
        inputs = replace(inputs, x=_take(inputs.x, rows))
    return finish(backbone, inputs.x, layer)


def layers_until(layers: Sequence[nn.Module], count: int | None) -> list[nn.Module]:
    """The first `count` of `layers`, fewer than all; None stands for all.

    Raises:
        RewardError: there are not so many.
    """
    if count is not None and not 0 <= count < len(layers):
        raise RewardError(
            f"Got layer={count} for a language model of {len(layers)} layers; expected 0 to {len(layers) - 1}, or None "
            "for the last one after its norm."
        )
    return list(layers)[:count]


def run(
    block: nn.Module,
    inputs: Embedded,
    mask: Tensor | None,
    *,
    rows: Tensor | None = None,
    past: KeyValue | None = None,
) -> Embedded:
    """One decoder layer: its output at the positions `rows` (all if None) takes the place of `inputs.x`.

    Args:
        block: the layer.
        inputs: the output of the layer before.
        mask: see `visible`.
        rows: (B, R) positions.
        past: keys and values of what stands before `inputs`.
    """
    whole = getattr(block, WHOLE, None) or partial(_whole, block)
    return replace(inputs, x=whole(inputs.x, inputs, mask, rows, past))


def run_keeping(block: nn.Module, inputs: Embedded, mask: Tensor | None) -> tuple[Embedded, KeyValue]:
    """One decoder layer at all positions, and what later positions of the same rows attend to there."""
    attend, feed = _steps(block)
    x, key, value = attend(block, inputs, mask, None, None)
    return replace(inputs, x=feed(block, x)), (key, value)


def keys_values(block: Foreign, inputs: Embedded) -> KeyValue:
    """What later positions attend to in a layer whose own output nobody reads."""
    x, cos, sin = to(device_of(block), (inputs.x, inputs.cos, inputs.sin))
    attention, normed = block.self_attn, block.input_layernorm(x)
    _, key, value = (_heads(part, attention.head_dim) for part in _project(attention, normed[:, :0], normed))
    return _rotate(key, cos, sin), value


def finish(backbone: Backbone, x: Tensor, layer: int | None) -> Tensor:
    """States (B, R, H) of the last layer that was run, after the final norm if that is the last there is."""
    if layer is not None:
        return x
    final: Tensor = backbone.norm(x.to(device_of(backbone.norm)))
    return final


def compile_layers(backbone: Backbone, *, backend: str = "inductor") -> None:
    """Let `torch.compile` run the decoder layers of `backbone` from now on; all share one compiled function.

    Args:
        backbone: changed in place.
        backend: of `torch.compile`.
    """
    steps = tuple(torch.compile(step, dynamic=True, backend=backend) for step in (_attended, _fed))
    for block in backbone.layers:
        cast(Foreign, block)._steps = steps  # functions of the layer, no part of its weights


def checkpoint_layers(backbone: Backbone) -> None:
    """Keep no inner values of the decoder layers for the backward pass from now on, but compute them again there."""
    from torch.utils.checkpoint import checkpoint

    steps = tuple(partial(checkpoint, step, use_reentrant=False) for step in (_attended, _fed))
    for block in backbone.layers:
        cast(Foreign, block)._steps = steps


def call_whole(block: nn.Module) -> None:
    """Let `run` call the method `WHOLE` of a layer, from one tensor to one, which hooks can be put on."""
    setattr(block, WHOLE, partial(_whole, block))


def visible(mask: Tensor, rows: Tensor | None) -> Tensor | None:
    """What each reading position may attend to, (B, 1, R, L) bool; None stands for plain causality.

    Plain causality is enough where nothing but padding on the right is hidden. Padding on the left sees itself only: a
    position that sees nothing would be NaN.
    """
    if rows is None and bool((mask[:, :-1] >= mask[:, 1:]).all()):
        return None
    keys = torch.arange(mask.shape[1], device=mask.device)
    if rows is None:
        rows = keys.expand(len(mask), -1)
    queries = rows[:, None, :, None]  # (B, 1, R, 1)
    return ((keys <= queries) & mask[:, None, None]) | (keys == queries)


def rotary(positions: Tensor, frequencies: Tensor, *, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, 1, L, 2F) of the rotary embedding, float32.

    Args:
        positions: (B, L, 1), or (B, L, F) where each frequency has its own axis.
        frequencies: (F,) radians per position, or (B, 1, F) where rows differ.
        scale: multiplies both.
    """
    angles = positions.float() * frequencies  # (B, L, F)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos() * scale, angles.sin() * scale


def inverse_frequencies(theta: float, width: int) -> Tensor:
    """theta^(-2i/D) for i = 0 .. D/2 - 1, shape (D/2,)."""
    return 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.int64).float() / width)


def text_positions(mask: Tensor) -> Tensor:
    """Positions (B, L) that count the real tokens of each row from 0; 1 on padding."""
    return (mask.long().cumsum(-1) - 1).masked_fill(~mask, 1)


def device_of(module: nn.Module) -> torch.device:
    """Where the first parameter of `module` lies."""
    return next(iter(module.parameters())).device


def to(device: torch.device, tensors: Iterable[Tensor | None]) -> list[Any]:
    """`tensors` on `device`; None stays None."""
    return [None if tensor is None else tensor.to(device) for tensor in tensors]


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """`x` (B, L, H) at `rows` (B, R): (B, R, H)."""
    return x.gather(1, rows.to(x.device)[..., None].expand(-1, -1, x.shape[-1]))


def _steps(block: Foreign) -> Sequence[Callable[..., Any]]:
    """The two halves of a layer, or what `compile_layers` made of them."""
    steps: Sequence[Callable[..., Any]] = getattr(block, "_steps", (_attended, _fed))
    return steps


def _whole(
    block: Foreign, x: Tensor, inputs: Embedded, mask: Tensor | None, rows: Tensor | None, past: KeyValue | None
) -> Tensor:
    """A layer's output at `rows`, from `x` in place of `inputs.x`."""
    attend, feed = _steps(block)
    output: Tensor = feed(block, attend(block, replace(inputs, x=x), mask, rows, past)[0])
    return output


def _attended(
    block: Foreign, inputs: Embedded, mask: Tensor | None, rows: Tensor | None, past: KeyValue | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The first half of a layer at `rows` (all if None): attention with its residual, and keys and values of all."""
    device = device_of(block)
    x, cos, sin, mask, rows = to(device, (inputs.x, inputs.cos, inputs.sin, mask, rows))
    attention = block.self_attn
    normed = block.input_layernorm(x)
    asking = normed if rows is None else _take(normed, rows)
    query, key, value = (_heads(part, attention.head_dim) for part in _project(attention, asking, normed))
    key = _rotate(key, cos, sin)
    query = _rotate(query, *(cos, sin) if rows is None else (_take_angles(cos, rows), _take_angles(sin, rows)))
    if past is not None:
        key, value = (torch.cat([old, new], dim=2) for old, new in zip(past, (key, value), strict=True))
    seen = _attend(query, key, value, mask)  # (B, R, heads · D)
    return (x if rows is None else _take(x, rows)) + attention.o_proj(seen), key, value


def _fed(block: Foreign, x: Tensor) -> Tensor:
    """The second half of a layer: the gated MLP, with its residual; its inner values are the widest there are."""
    mlp = block.mlp
    return x + mlp.down_proj(_gated(mlp, block.post_attention_layernorm(x)))  # type: ignore[no-any-return]


def _gated(mlp: Foreign, x: Tensor) -> Tensor:
    if hasattr(mlp, "gate_up_proj"):
        gate, up = mlp.gate_up_proj(x).chunk(2, dim=-1)
        gate = mlp.activation_fn(gate)
    else:
        gate, up = mlp.act_fn(mlp.gate_proj(x)), mlp.up_proj(x)
    return gate * up if gate.requires_grad else gate.mul_(up)  # type: ignore[no-any-return]


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:  # grouped-query attention
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
    return seen.transpose(1, 2).flatten(2)


def _project(attention: Foreign, asking: Tensor, all_rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the asking rows, keys and values of all rows, each (B, ·, heads · D)."""
    if not hasattr(attention, "qkv_proj"):
        return attention.q_proj(asking), attention.k_proj(all_rows), attention.v_proj(all_rows)
    width = attention.o_proj.in_features
    fused = attention.qkv_proj
    if type(fused) is nn.Linear:  # a wrapped one cannot be cut
        query = F.linear(asking, fused.weight[:width])
        key, value = F.linear(all_rows, fused.weight[width:]).chunk(2, dim=-1)
        return query, key, value
    rest = (fused.out_features - width) // 2
    key, value = fused(all_rows)[..., width:].split(rest, dim=-1)
    return fused(asking)[..., :width], key, value


def _heads(x: Tensor, width: int) -> Tensor:
    """(B, L, heads · D) as (B, heads, L, D)."""
    return torch.unflatten(x, -1, (-1, width)).transpose(1, 2)


def _take_angles(angles: Tensor, rows: Tensor) -> Tensor:
    return _take(angles[:, 0].expand(len(rows), -1, -1), rows)[:, None]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat([-second, first], dim=-1) * sin.to(x.dtype)
