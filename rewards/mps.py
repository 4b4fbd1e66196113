"""MPS, the Multi-dimensional Preference Score: what a prompt asks for, weighed against what people look at.

score = exp(logit_scale) cos(text, image'), typically 0 to 20, where image' is the class token after four layers in
which the picture looks at those words of the prompt that have to do with the condition: similarity above `threshold`
times the largest.

The published code takes the largest over the whole batch, so that a score depends on its companions; here it is the
prompt's own, which is what the published code gives for one prompt at a time. A prompt is cut after 77 tokens.

References: Zhang et al., Learning multi-dimensional human preference for text-to-image generation, CVPR 2024;
github.com/Kwai-Kolors/MPS.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, silu

from rewards.clip import VIT_H, Clip, clip_tokenizer
from rewards.devices import device_of, dtype_of
from rewards.errors import CheckpointError
from rewards.llava.weights import empty
from rewards.open_clip import build, read_settings
from rewards.states import State, find_file, place, read_state
from rewards.views import CentreCrop
from rewards.vision import VisionReward

CHECKPOINT, FILE = "RE-N-Y/mpsv1", "model.safetensors"
CONDITION = (  # the words that the overall score was trained with
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, instance, "
    "texture, quantity, attributes, position, number, location, word, things."
)
THRESHOLD = 0.01


class SwiGlu(nn.Module):
    """Half of the channels, gated by the other half."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., 2 C) to (..., C)."""
        x, gate = x.chunk(2, dim=-1)
        return silu(gate) * x


class Look(nn.Module):
    """The picture's tokens attend to the prompt's, with one key and value for all heads; a feed-forward beside it.

    Args:
        dim: of the tokens.
        inner: of all heads' queries.
        head: of one head.
        wide: of the feed-forward.
    """

    def __init__(self, dim: int, inner: int, head: int, wide: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * head, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)
        self.ff = nn.Sequential(nn.Linear(dim, 2 * wide, bias=False), SwiGlu(), nn.Linear(wide, dim, bias=False))
        self.head = head

    def forward(self, x: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Picture tokens (B, V, D) after looking at words (B, L, D), where `mask` (B, L) lets them."""
        tokens = self.norm(x)
        queries = self.to_q(tokens).unflatten(-1, (-1, self.head)).transpose(1, 2)  # (B, heads, V, head)
        keys, values = self.to_kv(words)[:, None].chunk(2, dim=-1)  # (B, 1, L, head)
        seen = _attend(queries, keys, values, mask[:, None, None])
        out: Tensor = x + self.to_out(seen) + self.ff(tokens)
        return out


class Think(nn.Module):
    """The picture's tokens attend to each other, with rotary positions; a feed-forward beside it.

    Args:
        dim: of the tokens.
        inner: of all heads' queries.
        head: of one head.
        wide: of the feed-forward.
    """

    def __init__(self, dim: int, inner: int, head: int, wide: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fused_attn_ff_proj = nn.Linear(dim, inner + 2 * head + 2 * wide, bias=False)
        self.attn_out = nn.Linear(inner, dim, bias=False)
        self.ff_out = nn.Sequential(SwiGlu(), nn.Linear(wide, dim, bias=False))
        self.parts = (inner, head, head, 2 * wide)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, V, D)."""
        queries, keys, values, wide = self.fused_attn_ff_proj(self.norm(x)).split(self.parts, dim=-1)
        queries = queries.unflatten(-1, (-1, self.parts[1])).transpose(1, 2)  # (B, heads, V, head)
        seen = _attend(_turned(queries), _turned(keys)[:, None], values[:, None])
        out: Tensor = x + self.attn_out(seen) + self.ff_out(wide)
        return out


class Crossing(nn.Module):
    """Layers of looking and thinking in turn.

    Args:
        state: the weights, for their number and shapes.
    """

    def __init__(self, state: State) -> None:
        super().__init__()
        depth = 1 + max(int(name.split(".")[1]) for name in state)
        inner, dim = state["layers.0.0.to_q.weight"].shape
        sizes = dim, inner, len(state["layers.0.0.to_kv.weight"]) // 2, state["layers.0.0.ff.2.weight"].shape[1]
        self.layers = nn.ModuleList(nn.ModuleList([Look(*sizes), Think(*sizes)]) for _ in range(depth))

    def forward(self, x: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B, V, D) of pictures with the words (B, L, D) of prompts."""
        for layer in self.layers:
            look, think = cast("nn.ModuleList", layer)
            x = think(look(x, words, mask))
        return x


class Mps:
    """The network of `VisionReward`.

    Args:
        clip: the towers.
        crossing: what joins them.
        condition: what people look at.
        threshold: which words take part, see the module.
    """

    def __init__(self, clip: Clip, crossing: Crossing, *, condition: str = CONDITION, threshold: float = 0.01) -> None:
        self.clip = clip
        self.crossing = crossing
        self._threshold = threshold
        with torch.no_grad():
            self._condition = self._words([condition])[0][0]  # (L, D)

    @property
    def weight(self) -> Tensor:
        """The one that meets the pixels."""
        return self.clip.weight

    def text(self, prompts: Sequence[str]) -> Tensor:
        """For each prompt its words, unit embedding and which words take part, (P, L + 1, D + 1)."""
        words, ends = self._words(prompts)
        likeness = (words @ self._condition.T).amax(-1)  # (P, L)
        part = likeness / likeness.amax(-1, keepdim=True) > self._threshold
        whole = normalize(words[torch.arange(len(words), device=ends.device), ends].float(), dim=-1).to(words)
        rows = torch.cat([words, whole[:, None]], dim=1)  # (P, L + 1, D)
        return torch.cat([rows, nn.functional.pad(part, (0, 1)).to(words)[..., None]], dim=-1)

    def score(self, pixels: Tensor, text: Tensor) -> Tensor:
        """Scores (B,) of normalised pixels (B, 3, S, S) with rows (B, L + 1, D + 1) of `text`."""
        words, whole, part = text[:, :-1, :-1], text[:, -1, :-1], text[:, :-1, -1].bool()
        model = self.clip.model
        patches = model.visual_projection(model.vision_model(pixel_values=pixels).last_hidden_state)  # (B, V, D)
        seen = self.crossing(patches, words, part)[:, 0]
        scores: Tensor = self.clip.scale * (normalize(seen.float(), dim=-1) * whole.float()).sum(-1)
        return scores

    def _words(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Projected tokens (P, L, D), padding included as in the published code, and the end tokens' places (P,)."""
        ids, ends = self.clip.tokens(prompts, full=True)
        model = self.clip.model
        words: Tensor = model.text_projection(model.text_model(input_ids=ids).last_hidden_state)
        return words, ends


def load_mps(
    checkpoint: str | Path = CHECKPOINT,
    *,
    tokenizer: str | Path = VIT_H,
    condition: str = CONDITION,
    threshold: float = THRESHOLD,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    batch_size: int = 16,
) -> VisionReward:
    """MPS from its weights as plain tensors.

    Args:
        checkpoint: folder or hub name with model.safetensors, or the path of a file of tensors. The authors' own
            MPS_overall_checkpoint.pth is a pickled program and is not opened: save its `state_dict()` first.
        tokenizer: folder or hub name of CLIP's tokenizer, where the checkpoint's folder has none.
        condition: what people look at; the words of the overall score by default.
        threshold: 0.01 as in training and the authors' example; their evaluation scripts have 0.3.
        device: a GPU if None and there is one.
        dtype: "float32", "bfloat16" or "float16".
        batch_size: pictures in one forward pass.

    Raises:
        RewardError: no such checkpoint, device or dtype.
    """
    where, number = device_of(device), dtype_of(dtype)
    file = find_file(checkpoint, FILE)
    towers, joint = parted(read_state(file), file)
    model = build(read_settings(file.parent))
    place(model, towers, file)
    crossing = empty(lambda: Crossing(joint))
    place(crossing, joint, file)
    clip = Clip(model.to(where), clip_tokenizer(file.parent, tokenizer), number)
    network = Mps(clip, crossing.to(where, number), condition=condition, threshold=threshold)  # type: ignore[arg-type]
    view = CentreCrop(clip.edge, odd="floored")
    return VisionReward("mps", network, view, batch_size=batch_size, files=[file], settings=f"{threshold} {condition}")


def parted(state: State, source: Path) -> tuple[State, State]:
    """Weights of the towers and of what joins them, under our names.

    Raises:
        CheckpointError: it is no MPS.
    """
    plain = {name.removeprefix("mps."): tensor for name, tensor in state.items() if _weighs(name)}
    towers = {name.removeprefix("model."): tensor for name, tensor in plain.items() if name.startswith("model.")}
    start = "cross_model."
    joint = {
        name.removeprefix(start).replace(".fn.", "."): tensor
        for name, tensor in plain.items()
        if name.startswith(start)
    }
    if not {"layers.0.0.to_q.weight", "layers.0.0.to_kv.weight", "layers.0.0.ff.2.weight"} <= joint.keys():
        raise CheckpointError(f"{source} holds no MPS; expected weights named model. … and cross_model. … in it.")
    return towers, joint


def _weighs(name: str) -> bool:
    return not name.endswith(("position_ids", "inv_freq", "pos_emb"))


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """What the heads see, (B, V, heads · head); one key and value for all heads."""
    likeness: Tensor = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])  # (B, heads, V, L)
    if mask is not None:
        likeness = likeness.masked_fill(~mask, -torch.inf)
    return (likeness.softmax(-1) @ values).transpose(1, 2).flatten(2)


def _turned(x: Tensor) -> Tensor:
    """Rotary positions along the last but one axis."""
    half = x.shape[-1] // 2
    speed = torch.pow(10000, -torch.arange(half, device=x.device) / half)
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * speed  # (V, half)
    cos, sin = (part.repeat(1, 2).to(x) for part in (angle.cos(), angle.sin()))
    near, far = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-far, near], dim=-1) * sin
