"""LLaVA up to its last hidden state: LLaVA-v1.6 with its tiles of any resolution, and plain LLaVA with one crop.

Tower and decoder layers are those of transformers; the packing of tiles into visual tokens is here. Module names are
those of the released checkpoints, for example `llava-hf/llava-v1.6-vicuna-13b-hf`.
"""

import re
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from rewards.errors import CheckpointError
from rewards.llava.anyres import best_resolution, unpadded
from rewards.llava.backbone import Embedded, Foreign, Picture, Sight, Tokens, padded
from rewards.llava.decoder import device_of, inverse_frequencies, rotary, text_positions
from rewards.llava.tower import clip_tower, crop_features, layers_run


class Llava(nn.Module):
    """Plain LLaVA (`rewards.llava.backbone.Backbone`): the visual tokens of a picture are the patches of one crop.

    Args:
        config: the checkpoint's config.json.
    """

    eps = 1e-5

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        full = _config(config)
        text, vision = full.text_config, full.vision_config
        if config["text_config"].get("model_type", "llama") != "llama" or vision.model_type != "clip_vision_model":
            raise CheckpointError(
                f"Got a LLaVA of {vision.model_type} and {config['text_config'].get('model_type')}; expected a CLIP "
                "vision tower and a Llama or Vicuna language model."
            )
        if not isinstance(full.vision_feature_layer, int):
            raise CheckpointError(
                f"Got vision_feature_layer {full.vision_feature_layer} in config.json; expected one number."
            )
        self.width: int = text.hidden_size
        self._config = full
        self._image_id: int = full.image_token_id
        self._keep_class = full.vision_feature_select_strategy == "full"
        self.vision_tower = nn.Module()
        self.vision_tower.vision_model = clip_tower(vision, full.vision_feature_layer)
        self.multi_modal_projector = _projector(full)
        self.language_model = nn.Module()
        self.language_model.model = _Model(text)
        self._frequencies = _frequencies(text)

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The decoder layers."""
        return cast("Sequence[nn.Module]", self._text.layers)

    @property
    def norm(self) -> nn.Module:
        """The norm after them."""
        return cast(nn.Module, self._text.norm)

    @property
    def _text(self) -> "_Model":
        return cast("_Model", self.language_model.model)

    def features(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """Tower output (C, patches, W) of each picture's crops."""
        pixels = [picture.pixels for picture in pictures]
        return crop_features(self.vision_tower.vision_model, pixels, keep_class=self._keep_class)

    def project(self, features: Sequence[Tensor], pictures: Sequence[Picture]) -> list[Tensor]:
        """Visual tokens (V, H)."""
        device = device_of(self.multi_modal_projector)
        projected = self.multi_modal_projector(
            torch.cat([crops.to(device) for crops in features])
        )  # (crops, patches, H)
        parts = projected.split([len(crops) for crops in features])
        return [self.pack(crops, picture.size) for crops, picture in zip(parts, pictures, strict=True)]

    def pack(self, crops: Tensor, size: tuple[int, int]) -> Tensor:
        """Visual tokens (V, H) of projected crops (1, patches, H)."""
        return crops[0]

    def embed(self, tokens: Tokens, visual: Sequence[Tensor], *, official: bool = False) -> Embedded:
        """Word embeddings with the visual tokens in place of `<image>`; `official` changes nothing."""
        words = self._text.embed_tokens
        ids, mask = (part.to(device_of(words)) for part in (tokens.ids, tokens.mask))
        slots = (ids == self._image_id) & mask
        x = words(ids.masked_fill(slots, 0))  # the slot's id may lie outside the vocabulary
        x = x.masked_scatter(slots[..., None], torch.cat([row.to(x) for row in visual]))
        cos, sin = rotary(text_positions(mask)[..., None], self._frequencies.to(ids.device))
        return Embedded(x, cos, sin, mask)

    def sight(self, tokens: Tokens, visual: Sequence[Tensor], *, official: bool = False) -> Sight:
        """The visual tokens; the published code has no SkipCA for LLaVA, so there is no other mode."""
        return padded(visual)


class LlavaNext(Llava):
    """LLaVA-v1.6: the whole picture, then the tiles of the best resolution with row ends."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.image_newline = nn.Parameter(torch.zeros(self.width))

    def pack(self, crops: Tensor, size: tuple[int, int]) -> Tensor:
        """Visual tokens (V, H) of projected crops (1 + tiles, patches, H) of a picture of `size` pixels."""
        vision = self._config.vision_config
        side = vision.image_size // vision.patch_size
        best = best_resolution(size, self._config.image_grid_pinpoints)
        high, wide = (pixels // vision.image_size for pixels in best)
        whole, tiles = crops[0], torch.unflatten(crops[1:], 1, (side, side))  # (tiles, side, side, H)
        grid = torch.unflatten(tiles, 0, (high, wide)).transpose(1, 2).flatten(2, 3).flatten(0, 1)  # (rows, columns, H)
        rows, columns = unpadded(size, (side * high, side * wide))
        grid = grid[rows, columns]
        ends = self.image_newline.to(grid).expand(len(grid), 1, -1)
        return torch.cat([whole, torch.cat([grid, ends], dim=1).flatten(0, 1)])


class _Model(nn.Module):
    def __init__(self, config: Foreign) -> None:
        from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LlamaDecoderLayer(config, number) for number in range(config.num_hidden_layers))
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)


def checkpoint_name(name: str, tower_layers: int) -> str | None:
    """Our parameter's name for a name in a checkpoint, old or new; None for one that is not needed."""
    name = name.removeprefix("base_model.model.")
    for new, old in _RENAMED:
        name = re.sub(new, old, name, count=1)
    unneeded = ("language_model.lm_head.", "lm_head.", "vision_tower.vision_model.post_layernorm.")
    if name.startswith(unneeded) or name.endswith(("position_ids", "inv_freq")):
        return None
    number = re.search(r"^vision_tower\.vision_model\.encoder\.layers\.(\d+)\.", name)
    return None if number and int(number[1]) >= tower_layers else name


_RENAMED = (  # names that transformers 5 writes, and those it reads
    (r"^model\.(vision_tower|multi_modal_projector|image_newline)", r"\1"),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),
)


def tower_layers(config: dict[str, Any]) -> int:
    """How many layers of the vision tower are run."""
    full = _config(config)
    return layers_run(full.vision_config.num_hidden_layers, full.vision_feature_layer)


def _config(config: dict[str, Any]) -> Foreign:
    from transformers import LlavaConfig, LlavaNextConfig

    return (LlavaNextConfig if config["model_type"] == "llava_next" else LlavaConfig)(**config)


def _projector(config: Foreign) -> nn.Module:
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    projector: nn.Module = LlavaMultiModalProjector(config)
    return projector


def _frequencies(config: Foreign) -> Tensor:
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default":
        raise CheckpointError(
            f"Got rotary embeddings of type {rope['rope_type']!r} in config.json; expected 'default'."
        )
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return inverse_frequencies(rope["rope_theta"], head)
