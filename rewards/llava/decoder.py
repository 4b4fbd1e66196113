"""The decoder of every backbone, walked layer by layer and computed only as far as it is read.

The layers are those of transformers (Phi-3, Llama, Qwen2.5-VL: norm, rotary attention, norm, gated MLP, with
residuals); the walk is ours, so that nothing is kept that nobody asks for, and so that in the last layer only the rows
to be read get a query, an attention output and an MLP, while all rows give keys and values. The numbers are those of
the full pass.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rewards.errors import RewardError
from rewards.llava.backbone import Backbone, Embedded, Foreign


@dataclass(frozen=True)
class Past:
    """Keys and values of a shared beginning: for each layer (B, heads, P, D), rotated."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def expand(self, count: int) -> "Past":
        """The same beginning for `count` rows, without a copy; it must have been made from one row."""
        return Past(
            tuple(key.expand(count, -1, -1, -1) for key in self.keys),
            tuple(value.expand(count, -1, -1, -1) for value in self.values),
        )


def read(
    backbone: Backbone,
    inputs: Embedded,
    *,
    rows: Tensor | None = None,
    layer: int | None = None,
    past: Past | None = None,
) -> Tensor:
    """Hidden states (B, R, H) at the positions `rows`.

    Args:
        backbone: gives layers and final norm.
        inputs: what goes into the first layer.
        rows: (B, R) positions in `inputs` to read; None reads all.
        layer: how many layers to run, 0 to one less than all, for their output before the final norm; None runs all of
            them and the norm.
        past: keys and values of what stands before `inputs`, from `prefill`.

    Raises:
        RewardError: there is no such layer.
    """
    layers = _first(backbone.layers, layer)
    x = inputs.x
    mask = visible(inputs.mask, None, past)
    for number, block in enumerate(layers[:-1] if rows is not None else layers):
        x, _, _ = _walk(block)(block, replace(inputs, x=x), mask, None, _of_layer(past, number))
    if rows is not None and layers:
        mask = visible(inputs.mask, rows, past)
        x, _, _ = _walk(layers[-1])(layers[-1], replace(inputs, x=x), mask, rows, _of_layer(past, len(layers) - 1))
    elif rows is not None:
        x = _take(x, rows)
    if layer is not None:
        return x
    final: Tensor = backbone.norm(x.to(device_of(backbone.norm)))
    return final


def common_start(inputs: Embedded) -> int:
    """How many first positions are the same in all rows: what `read_behind` can compute once."""
    same = (inputs.x == inputs.x[:1]).all(-1).all(0) & (inputs.cos == inputs.cos[:1]).all(-1).all(0)[0]
    return int((same & inputs.mask.all(0)).int().cumprod(0).sum())


def read_behind(backbone: Backbone, inputs: Embedded, *, start: int, rows: Tensor, layer: int | None = None) -> Tensor:
    """`read` of rows that share their first `start` positions (several prompts on one picture), which run once.

    Args:
        backbone: gives layers and final norm.
        inputs: padded on the right; equal in all rows before `start`, see `common_start`.
        start: at least 1, and before every position in `rows`.
        rows: (B, R) positions to read.
        layer: as in `read`.
    """
    first = Embedded(
        inputs.x[:1, :start], inputs.cos[:1, :, :start], inputs.sin[:1, :, :start], inputs.mask[:1, :start]
    )
    rest = Embedded(inputs.x[:, start:], inputs.cos[:, :, start:], inputs.sin[:, :, start:], inputs.mask[:, start:])
    past = prefill(backbone, first, layer=layer).expand(len(inputs.x))
    return read(backbone, rest, rows=rows - start, layer=layer, past=past)


def prefill(backbone: Backbone, inputs: Embedded, *, layer: int | None = None) -> Past:
    """Keys and values of `inputs` in every layer that `read` with the same `layer` will run."""
    keys, values = [], []
    x = inputs.x
    mask = visible(inputs.mask, None, None)
    for block in _first(backbone.layers, layer):
        x, key, value = _walk(block)(block, replace(inputs, x=x), mask, None, None)
        keys.append(key)
        values.append(value)
    return Past(tuple(keys), tuple(values))


def compile_layers(backbone: Backbone, *, backend: str = "inductor") -> None:
    """Let `torch.compile` run the decoder layers of `backbone` from now on; all share one compiled function.

    Args:
        backbone: changed in place.
        backend: of `torch.compile`.
    """
    walk = torch.compile(_layer, dynamic=True, backend=backend)
    for block in backbone.layers:
        cast(Foreign, block)._walk = walk  # a function of the layer, no part of its weights


def visible(mask: Tensor, rows: Tensor | None, past: Past | None) -> Tensor | None:
    """What each reading position may attend to, (B, 1, R, P + L) bool; None stands for plain causality.

    Plain causality is enough where nothing but padding on the right is hidden. Padding on the left sees itself only: a
    position that sees nothing would be NaN.
    """
    before = past.keys[0].shape[2] if past else 0
    if rows is None and not before and bool((mask[:, :-1] >= mask[:, 1:]).all()):
        return None
    full = F.pad(mask, (before, 0), value=True)  # (B, P + L)
    keys = torch.arange(full.shape[1], device=mask.device)
    if rows is None:
        rows = torch.arange(mask.shape[1], device=mask.device).expand(len(mask), -1)
    queries = (rows + before)[:, None, :, None]  # (B, 1, R, 1)
    return ((keys <= queries) & full[:, None, None]) | (keys == queries)


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


def _first(layers: Sequence[nn.Module], count: int | None) -> list[nn.Module]:
    if count is not None and not 0 <= count < len(layers):
        raise RewardError(
            f"Got layer={count} for a language model of {len(layers)} layers; expected 0 to {len(layers) - 1}, or None "
            "for the last one after its norm."
        )
    return list(layers)[:count]


def _of_layer(past: Past | None, number: int) -> tuple[Tensor, Tensor] | None:
    return None if past is None else (past.keys[number], past.values[number])


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """`x` (B, L, H) at `rows` (B, R): (B, R, H)."""
    return x.gather(1, rows.to(x.device)[..., None].expand(-1, -1, x.shape[-1]))


def _walk(block: Foreign) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """`_layer`, or what `compile_layers` made of it."""
    return getattr(block, "_walk", _layer)


def _layer(
    block: Foreign, inputs: Embedded, mask: Tensor | None, rows: Tensor | None, past: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One decoder layer at `rows` (all if None): its output, and its keys and values of all rows."""
    device = device_of(block)
    x, cos, sin, mask, rows = to(device, (inputs.x, inputs.cos, inputs.sin, mask, rows))
    attention = block.self_attn
    normed = block.input_layernorm(x)
    asking = normed if rows is None else _take(normed, rows)
    query, key, value = (_heads(part, attention.head_dim) for part in _project(attention, asking, normed))
    key = _rotate(key, cos, sin)
    query = _rotate(query, *(cos, sin) if rows is None else (_take_angles(cos, rows), _take_angles(sin, rows)))
    if past is not None:
        key, value = (torch.cat([old.to(device), new], dim=2) for old, new in zip(past, (key, value), strict=True))
    seen = _attend(query, key, value, mask)  # (B, R, heads · D)
    x = (x if rows is None else _take(x, rows)) + attention.o_proj(seen)
    return x + block.mlp(block.post_attention_layernorm(x)), key, value


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
