"""Weights of open_clip in transformers' CLIP.

The two are one network; open_clip keeps queries, keys and values in one matrix, and the two projections transposed.

Reference: github.com/mlfoundations/open_clip, `src/open_clip/model.py`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.clip import Clip
from rewards.llava.backbone import Foreign
from rewards.llava.weights import empty, read_json
from rewards.states import State, place

Json = dict[str, Any]
SETTINGS = "open_clip_config.json"
VIT_H_14: Json = {
    "embed_dim": 1024,
    "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
}
_NAMES = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.proj": "visual_projection.weight",
}
_MODULES = {"ln_final": "text_model.final_layer_norm", "visual.ln_pre": "vision_model.pre_layrnorm",
            "visual.ln_post": "vision_model.post_layernorm"}  # fmt: skip
_PARTS = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
          "attn.out_proj": "self_attn.out_proj"}  # fmt: skip
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)")


def read_settings(folder: Path) -> Json:
    """The model's settings from open_clip_config.json, ViT-H-14 where there is none."""
    path = folder / SETTINGS
    return dict(read_json(path)["model_cfg"]) if path.is_file() else VIT_H_14


def build(settings: Json) -> Foreign:
    """An empty `CLIPModel` with open_clip's settings; activations are GELU, as in all but OpenAI's own weights."""
    from transformers import CLIPConfig, CLIPModel

    vision, text = settings["vision_cfg"], settings["text_cfg"]
    activation = "quick_gelu" if settings.get("quick_gelu") else "gelu"
    config = CLIPConfig(
        projection_dim=settings["embed_dim"],
        vision_config={
            **_tower(vision["width"], vision["layers"], vision["width"] // vision.get("head_width", 64), activation),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
        },
        text_config={
            **_tower(text["width"], text["layers"], text["heads"], activation),
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["context_length"],
        },
    )
    return empty(lambda: CLIPModel(config))


def load_open_clip(
    state: State,
    settings: Json,
    tokenizer: Foreign,
    source: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Clip:
    """The model with the weights `state`.

    Args:
        state: names and tensors, as open_clip has them.
        settings: from `read_settings`.
        tokenizer: CLIP's.
        source: the file, for messages.
        device: where it runs.
        dtype: of the towers.

    Raises:
        CheckpointError: a weight is missing, unknown or of another shape.
    """
    model = build(settings)
    place(model, dict(pair for name, tensor in state.items() for pair in renamed(name, tensor)), source)
    return Clip(model.to(device), tokenizer, dtype, [source])


def renamed(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Transformers' names and tensors for one of open_clip's; unknown names stay."""
    block = _BLOCK.fullmatch(name)
    if block:
        tower, number, part, kind = block.groups()
        layer = f"{'vision' if tower else 'text'}_model.encoder.layers.{number}"
        if part == "attn.in_proj":
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                yield f"{layer}.self_attn.{letter}_proj.{kind}", third
        else:
            yield f"{layer}.{_PARTS.get(part, part)}.{kind}", tensor
        return
    module, _, kind = name.rpartition(".")
    plain = f"{_MODULES[module]}.{kind}" if module in _MODULES else name
    yield _NAMES.get(name, plain), tensor.T if name in ("text_projection", "visual.proj") else tensor


def _tower(width: int, layers: int, heads: int, activation: str) -> Json:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": activation,
    }
