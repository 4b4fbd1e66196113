"""Qwen2.5-VL up to its last hidden state.

Tower and decoder layers are those of transformers; the placing of the visual tokens, the three-axis rotary positions
and the split of the tower's pass before the merger (which LLaVA-Reward trains) are here. Module names are those of the
released checkpoint, `Qwen/Qwen2.5-VL-7B-Instruct`.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rewards.llava.backbone import Embedded, Foreign, Picture, Sight, Tokens, padded
from rewards.llava.decoder import device_of, inverse_frequencies, rotary
from rewards.llava.head import RMSNorm

PAD_ID = 151643  # <|endoftext|>, which the published SkipCA takes for the image's placeholder


class QwenVL(nn.Module):
    """The backbone (`rewards.llava.backbone.Backbone`).

    Args:
        config: the checkpoint's config.json.
    """

    eps = 1e-6

    def __init__(self, config: dict[str, Any]) -> None:
        from transformers import Qwen2_5_VLConfig
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

        super().__init__()
        full: Foreign = Qwen2_5_VLConfig(**config)
        self._image_id: int = full.image_token_id
        self._window: int = full.vision_config.window_size // full.vision_config.patch_size
        self._merge: int = full.vision_config.spatial_merge_size
        self.width: int = full.text_config.hidden_size
        self._frequencies, self._axes = _rope(full.text_config)
        self.visual: Foreign = Qwen2_5_VisionTransformerPretrainedModel(full.vision_config)
        self.model = _Model(full.text_config)

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The decoder layers."""
        return cast("Sequence[nn.Module]", self.model.layers)

    @property
    def norm(self) -> nn.Module:
        """The norm after them."""
        return self.model.norm

    def features(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """Tower output (patches, W) of each picture before the merger, in the picture's own order."""
        device, dtype = device_of(self.visual), self.visual.patch_embed.proj.weight.dtype
        grids = torch.tensor([(1, *picture.size) for picture in pictures], device=device)
        pixels = torch.cat([picture.pixels for picture in pictures]).to(device, dtype)
        tower = copy(self.visual)  # without its merger: a tower that is frozen runs apart from what is trained
        tower._modules = {**self.visual._modules, "merger": nn.Identity()}
        windowed = tower.forward(pixels, grid_thw=grids).last_hidden_state  # (patches, W), window by window
        counts = [len(picture.pixels) for picture in pictures]
        return [self._unwindow(rows, picture) for rows, picture in zip(windowed.split(counts), pictures, strict=True)]

    def project(self, features: Sequence[Tensor], pictures: Sequence[Picture]) -> list[Tensor]:
        """Visual tokens (patches / 4, H) that leave the merger, which runs once, however many pictures there are."""
        device = device_of(self.visual.merger)
        merged: Tensor = self.visual.merger(torch.cat([rows.to(device) for rows in features]))
        return list(torch.split(merged, [len(rows) // self._merge**2 for rows in features]))

    def embed(self, tokens: Tokens, visual: Sequence[Tensor], *, official: bool = False) -> Embedded:
        """Word embeddings with the visual tokens in place of `<|image_pad|>`; `official` changes nothing.

        `tokens` must lie on the CPU, where the positions are worked out.
        """
        words = self.model.embed_tokens
        slots = (tokens.ids == self._image_id) & tokens.mask
        sizes = [picture.size for picture in tokens.pictures]
        rows = [self._positions(*row) for row in zip(tokens.mask, slots, sizes, strict=True)]
        positions = torch.stack(rows)[..., self._axes]  # (B, L, D / 2)
        device = device_of(words)
        cos, sin = (part.to(device) for part in rotary(positions, self._frequencies))
        x = words(tokens.ids.to(device))
        x = x.masked_scatter(slots.to(device)[..., None], torch.cat([row.to(x) for row in visual]))
        return Embedded(x, cos, sin, tokens.mask.to(device))

    def sight(self, tokens: Tokens, visual: Sequence[Tensor], *, official: bool = False) -> Sight:
        """The visual tokens; with `official` the embeddings of the padding, where the published code looks."""
        if not official:
            return padded(visual)
        words = self.model.embed_tokens
        rows = tokens.ids.to(device_of(words))
        return padded([words(row[row == PAD_ID]) for row in rows])

    def _unwindow(self, rows: Tensor, picture: Picture) -> Tensor:
        cells = torch.unflatten(rows, 0, (-1, self._merge**2))  # (cells, 4, W)
        order = window_order(picture.size, merge=self._merge, window=self._window).to(rows.device)
        return cells[order.argsort()].flatten(0, 1)

    def _positions(self, mask: Tensor, slots: Tensor, size: tuple[int, int]) -> Tensor:
        """Positions (L, 3) in time, height and width: text counts on, a picture spans its grid."""
        high, wide = (patches // self._merge for patches in size)
        before = int((mask & (slots.cumsum(0) == 0)).sum())
        after = int(mask.sum()) - before - int(slots.sum())
        text = torch.arange(before)[:, None].expand(-1, 3)
        grid = torch.cartesian_prod(torch.zeros(1, dtype=torch.int64), torch.arange(high), torch.arange(wide)) + before
        rest = (torch.arange(after) + before + max(high, wide))[:, None].expand(-1, 3)
        positions = torch.ones(len(mask), 3, dtype=torch.int64)
        positions[mask] = torch.cat([text, grid, rest])
        return positions


class _Model(nn.Module):
    def __init__(self, config: Foreign) -> None:
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLDecoderLayer

        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Qwen2_5_VLDecoderLayer(config, number) for number in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


def window_order(size: tuple[int, int], *, merge: int, window: int) -> Tensor:
    """Cells of 2 x 2 patches in the order of the tower's windows: cell numbers (cells,), row by row in each window.

    Args:
        size: (height, width) of the picture in patches.
        merge: patches along an edge of a cell.
        window: patches along an edge of a window.
    """
    high, wide = (patches // merge for patches in size)
    side = window // merge
    cells = torch.arange(high * wide).view(high, wide)
    cells = F.pad(cells, (0, -wide % side, 0, -high % side), value=-1)
    cells = cells.reshape(len(cells) // side, side, -1, side).transpose(1, 2).flatten()
    return cells[cells >= 0]


def visual_count(size: tuple[int, int]) -> int:
    """Number of visual tokens V of a picture of `size` patches."""
    return size[0] * size[1] // 4


def checkpoint_name(name: str) -> str | None:
    """Our parameter's name for a name in a checkpoint, old or new; None for one that is not needed."""
    name = name.removeprefix("base_model.model.")
    name = name.removeprefix("model.") if name.startswith("model.visual.") else name
    if name.startswith("model.language_model."):
        name = "model." + name.removeprefix("model.language_model.")
    return None if name.startswith("lm_head.") or name.endswith("inv_freq") else name


def _rope(config: Foreign) -> tuple[Tensor, Tensor]:
    """Frequencies (D/2,) and the axis, 0 time, 1 height, 2 width, that each turns with."""
    rope = config.rope_parameters
    frequencies = inverse_frequencies(rope["rope_theta"], config.hidden_size // config.num_attention_heads)
    axes = torch.tensor([axis for axis, count in enumerate(rope["mrope_section"]) for _ in range(count)])
    return frequencies, axes
