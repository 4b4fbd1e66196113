"""The CLIP vision tower of Phi-3.5-vision and LLaVA, cut after the layer that is read."""

import torch
from torch import Tensor, nn

from rewards.llava.backbone import Foreign
from rewards.llava.decoder import device_of

_ROWS = {"cpu": 577}  # in one pass: so many keep a processor busy, and more only take memory
_ROWS_ELSEWHERE = 64 * 577


def layers_run(depth: int, read: int) -> int:
    """How many of `depth` layers must run for `hidden_states[read]`, of which there are depth + 1."""
    return depth + 1 + read if read < 0 else read


def clip_tower(config: Foreign, read: int) -> nn.Module:
    """Transformers' CLIP tower with the layers up to `hidden_states[read]` and without the norm after the last one."""
    from transformers import CLIPVisionModel

    config = type(config)(**{**config.to_dict(), "num_hidden_layers": layers_run(config.num_hidden_layers, read)})
    model = CLIPVisionModel(config)
    tower: nn.Module = getattr(model, "vision_model", model)  # nested in early releases of transformers 5
    tower.post_layernorm = nn.Identity()  # acts on what is not read
    return tower


def patch_features(tower: Foreign, pixels: Tensor, *, keep_class: bool = False) -> Tensor:
    """Features (C, patches, W) of crops (C, 3, S, S); with `keep_class` the class token stands first."""
    weight = tower.embeddings.patch_embedding.weight
    x = tower.pre_layrnorm(tower.embeddings(pixels.to(device_of(tower), weight.dtype)))
    for layer in tower.encoder.layers:
        x = layer(x, attention_mask=None)
    features: Tensor = x if keep_class else x[:, 1:]
    return features


def crop_features(tower: Foreign, pixels: list[Tensor], *, keep_class: bool = False) -> list[Tensor]:
    """`patch_features` of several pictures, one tensor (C_i, patches, W) each, a limited number of crops at a time.

    With gradients all go at once: everything is kept for them anyway, and processes that share the weights must ask for
    these equally often.
    """
    counts = [len(crops) for crops in pixels]
    crops = pixels[0] if len(pixels) == 1 else torch.cat(pixels)
    few = len(crops) if torch.is_grad_enabled() else crops_at_once(tower)
    features = torch.cat([patch_features(tower, part, keep_class=keep_class) for part in torch.split(crops, few)])
    return list(torch.split(features, counts))


def crops_at_once(tower: Foreign) -> int:
    """How many crops go through a tower in one pass."""
    return max(1, _ROWS.get(device_of(tower).type, _ROWS_ELSEWHERE) // int(tower.embeddings.num_positions))
