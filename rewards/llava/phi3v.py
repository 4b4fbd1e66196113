"""Phi-3.5-vision up to its last hidden state, without remote code.

The vision tower and the decoder layers are those of transformers; here stand the parts it has no class for: the "HD"
merge of crops into visual tokens, the scaled rotary embedding ("su", with short and long factors), the image slots of
negative ids. Module names are those of the released checkpoint, `microsoft/Phi-3.5-vision-instruct`.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from rewards.errors import CheckpointError
from rewards.llava.backbone import Embedded, Picture, Sight, Tokens, padded
from rewards.llava.decoder import device_of, inverse_frequencies, rotary, text_positions
from rewards.llava.tower import clip_tower, crop_features

CROP = 336  # pixels
CELLS = 12  # tokens along an edge of a crop
FEATURE = -2  # which hidden state of the tower is read

_VIT_L_14_336 = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14, "projection_dim": 768, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip


class Phi3V(nn.Module):
    """The backbone (`rewards.llava.backbone.Backbone`).

    Args:
        config: the checkpoint's config.json.
    """

    eps = 1e-5

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.width: int = config["hidden_size"]
        self.model = _Model(config)
        self._rope = _Rope(config)

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The decoder layers."""
        return cast("Sequence[nn.Module]", self.model.layers)

    @property
    def norm(self) -> nn.Module:
        """The norm after them."""
        return self.model.norm

    def features(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """Tower output (C, 576, W) of each picture's true crops."""
        return crop_features(self.model.vision_embed_tokens.tower, [picture.pixels for picture in pictures])

    def project(self, features: Sequence[Tensor], pictures: Sequence[Picture]) -> list[Tensor]:
        """Visual tokens (V, H): sub-crops with row ends, a separator, the whole picture with row ends."""
        return self.model.vision_embed_tokens.project(features, [picture.size for picture in pictures])

    def embed(self, tokens: Tokens, visual: Sequence[Tensor], *, official: bool = False) -> Embedded:
        """Word embeddings with the visual tokens in the slots of negative id.

        The rotary factors follow each row's own length; with `official` the padded length of the batch.
        """
        words = self.model.embed_tokens
        ids, mask = (part.to(device_of(words)) for part in (tokens.ids, tokens.mask))
        x = words(ids.clamp(min=0))
        slots = ids < 0
        x = x.masked_scatter(slots[..., None], torch.cat([row.to(x) for row in visual]))
        cos, sin = self._rope(mask, official=official)
        return Embedded(x, cos, sin, mask)

    def sight(self, tokens: Tokens, visual: Sequence[Tensor], *, official: bool = False) -> Sight:
        """The visual tokens; with `official` the zeros that pad a batch count too, and dilute the shorter rows."""
        sight = padded(visual)
        return Sight(sight.tokens, torch.ones_like(sight.mask)) if official else sight


class _Model(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        from transformers import Phi3Config
        from transformers.models.phi3.modeling_phi3 import Phi3DecoderLayer, Phi3RMSNorm

        super().__init__()
        names = (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "hidden_act",
            "rms_norm_eps",
        )
        phi3 = Phi3Config(
            **{name: config[name] for name in names},
            num_key_value_heads=config.get("num_key_value_heads", config["num_attention_heads"]),
            pad_token_id=None,
        )
        self.embed_tokens = nn.Embedding(config["vocab_size"], phi3.hidden_size)
        self.vision_embed_tokens = _ImageEmbedding(config)
        self.layers = nn.ModuleList(Phi3DecoderLayer(phi3, number) for number in range(phi3.num_hidden_layers))
        self.norm = Phi3RMSNorm(phi3.hidden_size, eps=phi3.rms_norm_eps)


class _ImageEmbedding(nn.Module):
    """The HD merge, order "sub_glb", and the projector."""

    def __init__(self, config: dict[str, Any]) -> None:
        from transformers import CLIPVisionConfig

        super().__init__()
        _check_layout(config)
        vision = CLIPVisionConfig(**config["img_processor"].get("vision_config", _VIT_L_14_336))
        cell = 4 * vision.hidden_size  # 2 x 2 neighbours
        self.img_processor = nn.Module()
        self.img_processor.vision_model = clip_tower(vision, FEATURE)
        self.glb_GN = nn.Parameter(torch.zeros(1, 1, cell))
        self.sub_GN = nn.Parameter(torch.zeros(1, 1, 1, cell))
        width = config["hidden_size"]
        self.img_projection = nn.Sequential(nn.Linear(cell, width), nn.GELU(), nn.Linear(width, width))

    @property
    def tower(self) -> nn.Module:
        """The CLIP tower."""
        return cast(nn.Module, self.img_processor.vision_model)

    def project(self, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Visual tokens (V, H) of each picture; the projector runs once, however many there are.

        No module is called with more tensors for more pictures: processes that share weights count on equal calls.

        Args:
            features: (1 + h · w, 576, W) of each picture's crops, the whole picture's first.
            sizes: in pixels.
        """
        merged = [self._merged(crops.to(self.sub_GN), size) for crops, size in zip(features, sizes, strict=True)]
        tokens: Tensor = self.img_projection(torch.cat(merged))
        return list(torch.split(tokens, [len(cells) for cells in merged]))

    def _merged(self, crops: Tensor, size: tuple[int, int]) -> Tensor:
        """What the projector is given of one picture, (V, 4 W)."""
        cells = _cells(crops)  # (1 + h · w, 12, 12, 4 W)
        high, wide = (pixels // CROP for pixels in size)
        grid = (
            torch.unflatten(cells[1:], 0, (high, wide)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
        )  # (12 h, 12 w, 4 W)
        return torch.cat([self._rows(grid), self.glb_GN[0], self._rows(cells[0])])

    def _rows(self, grid: Tensor) -> Tensor:
        """A grid (rows, columns, 4 W) as a list of tokens, with the separator at the end of every row."""
        ends = self.sub_GN[0].expand(len(grid), 1, -1)
        return torch.cat([grid, ends], dim=1).flatten(0, 1)


def _cells(crops: Tensor) -> Tensor:
    """Features (C, 24 · 24, W) with 2 x 2 neighbours joined, row then column: (C, 12, 12, 4 W)."""
    pairs = torch.unflatten(crops, 1, (CELLS, 2, CELLS, 2))  # (C, 12, 2, 12, 2, W)
    return pairs.transpose(2, 3).flatten(3)


class _Rope:
    """Rotary angles with the "su" scaling: other frequencies for long sequences, and longer vectors for both."""

    def __init__(self, config: dict[str, Any]) -> None:
        head = config["hidden_size"] // config["num_attention_heads"]
        base = inverse_frequencies(config["rope_theta"], head)
        scaling = config.get("rope_scaling")
        self._limit: int = config["original_max_position_embeddings"]
        self._scale = 1.0
        self._short = self._long = base
        if scaling is None:
            return
        if scaling.get("type", scaling.get("rope_type")) not in ("su", "longrope"):
            raise CheckpointError(f"Got rope_scaling {scaling} in config.json; expected type 'su' or 'longrope'.")
        self._short, self._long = (base / torch.tensor(scaling[name]) for name in ("short_factor", "long_factor"))
        stretch = config["max_position_embeddings"] / self._limit
        self._scale = math.sqrt(1 + math.log(stretch) / math.log(self._limit)) if stretch > 1 else 1.0

    def __call__(self, mask: Tensor, *, official: bool) -> tuple[Tensor, Tensor]:
        """Angles (B, 1, L, D) of a batch whose real tokens `mask` (B, L) marks."""
        lengths = mask.sum(-1)  # (B,)
        if official:
            lengths = torch.full_like(lengths, mask.shape[1])
        short, long = (factors.to(mask.device) for factors in (self._short, self._long))
        frequencies = torch.where(lengths[:, None] > self._limit, long, short)[:, None]  # (B, 1, D / 2)
        return rotary(text_positions(mask)[..., None], frequencies, scale=self._scale)


def visual_count(size: tuple[int, int]) -> int:
    """Number of visual tokens V of a padded picture of `size` pixels."""
    high, wide = (pixels // CROP for pixels in size)
    return (high * wide + 1) * CELLS**2 + 1 + (high + 1) * CELLS


def checkpoint_name(name: str, tower_layers: int) -> str | None:
    """Our parameter's name for a name in a checkpoint; None for one that is not needed."""
    name = name.removeprefix("base_model.model.")
    if name == "model.vision_embed_tokens.wte.weight":
        return "model.embed_tokens.weight"
    if (
        name.startswith("lm_head.")
        or ".vision_model.post_layernorm." in name
        or name.endswith("embeddings.position_ids")
    ):
        return None
    number = re.search(r"\.vision_model\.encoder\.layers\.(\d+)\.", name)
    return None if number and int(number[1]) >= tower_layers else name


def _check_layout(config: dict[str, Any]) -> None:
    layout = config.get("embd_layer", {})
    order, separator = layout.get("hd_transform_order", "sub_glb"), layout.get("with_learnable_separator", True)
    if order != "sub_glb" or not separator or not layout.get("use_hd_transform", True):
        raise CheckpointError(
            f"Got embd_layer {layout} in config.json; expected Phi-3.5-vision's HD transform in order 'sub_glb' with "
            "learnable separators."
        )
