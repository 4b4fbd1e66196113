"""The released base models without their weights: every key and shape, and the sizes that the specification counts."""

from collections.abc import Iterable
from typing import Any

import pytest
from torch import nn

from rewards.llava.families import Family, family_of
from rewards.llava.heads import PublishedHead
from rewards.llava.weights import empty

Shapes = dict[str, tuple[int, ...]]

PHI: dict[str, Any] = {
    "model_type": "phi3_v", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "vocab_size": 32064, "max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
    "rope_theta": 10000.0, "rope_scaling": {"type": "su", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48},
    "img_processor": {"name": "clip_vision_model", "image_dim_out": 1024, "num_img_tokens": 144},
    "embd_layer": {"hd_transform_order": "sub_glb", "use_hd_transform": True, "with_learnable_separator": True},
}  # fmt: skip
QWEN: dict[str, Any] = {
    "model_type": "qwen2_5_vl", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "image_token_id": 151655,
    "max_position_embeddings": 128000, "tie_word_embeddings": False,
    "vision_config": {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "in_chans": 3,
        "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2, "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31], "temporal_patch_size": 2,
    },
}  # fmt: skip
LLAVA: dict[str, Any] = {
    "model_type": "llava_next", "image_token_index": 32000, "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    "text_config": {
        "model_type": "llama", "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
        "num_attention_heads": 40, "num_key_value_heads": 40, "vocab_size": 32064, "rms_norm_eps": 1e-5,
    },
    "vision_config": {
        "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "image_size": 336, "patch_size": 14, "projection_dim": 768,
    },
}  # fmt: skip


def clip(prefix: str, layers: Iterable[int]) -> Shapes:
    """CLIP ViT-L/14-336."""
    shapes: Shapes = {
        "embeddings.class_embedding": (1024,),
        "embeddings.patch_embedding.weight": (1024, 3, 14, 14),
        "embeddings.position_embedding.weight": (577, 1024),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        shapes |= {f"{norm}.weight": (1024,), f"{norm}.bias": (1024,)}
    for layer in layers:
        at = f"encoder.layers.{layer}"
        for name in ("q", "k", "v", "out"):
            shapes |= {f"{at}.self_attn.{name}_proj.weight": (1024, 1024), f"{at}.self_attn.{name}_proj.bias": (1024,)}
        shapes |= {f"{at}.mlp.fc1.weight": (4096, 1024), f"{at}.mlp.fc1.bias": (4096,)}
        shapes |= {f"{at}.mlp.fc2.weight": (1024, 4096), f"{at}.mlp.fc2.bias": (1024,)}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{at}.{norm}.weight": (1024,), f"{at}.{norm}.bias": (1024,)}
    return {prefix + name: shape for name, shape in shapes.items()}


def linear(at: str, rows: int, columns: int, *, bias: bool) -> Shapes:
    """A matrix, with its bias."""
    return {f"{at}.weight": (rows, columns)} | ({f"{at}.bias": (rows,)} if bias else {})


def llama(prefix: str, layers: int, width: int, mlp: int, keys: int, *, bias: bool) -> Shapes:
    """Decoder layers of Llama or Qwen2.5."""
    shapes: Shapes = {}
    for layer in range(layers):
        at = f"{prefix}layers.{layer}"
        for name, rows in (("q", width), ("k", keys), ("v", keys)):
            shapes |= linear(f"{at}.self_attn.{name}_proj", rows, width, bias=bias)
        shapes |= linear(f"{at}.self_attn.o_proj", width, width, bias=False)
        for name in ("gate", "up"):
            shapes |= linear(f"{at}.mlp.{name}_proj", mlp, width, bias=False)
        shapes |= linear(f"{at}.mlp.down_proj", width, mlp, bias=False)
        shapes |= {f"{at}.{norm}.weight": (width,) for norm in ("input_layernorm", "post_attention_layernorm")}
    return shapes | {f"{prefix}norm.weight": (width,)}


def phi_keys() -> Shapes:
    """microsoft/Phi-3.5-vision-instruct, as the specification lists it."""
    see = "model.vision_embed_tokens."
    shapes: Shapes = {
        "model.embed_tokens.weight": (32064, 3072),
        f"{see}wte.weight": (32064, 3072),
        f"{see}glb_GN": (1, 1, 4096),
        f"{see}sub_GN": (1, 1, 1, 4096),
        "model.norm.weight": (3072,),
        "lm_head.weight": (32064, 3072),
    }
    shapes |= linear(f"{see}img_projection.0", 3072, 4096, bias=True)
    shapes |= linear(f"{see}img_projection.2", 3072, 3072, bias=True)
    shapes |= clip(f"{see}img_processor.vision_model.", range(24))
    for layer in range(32):
        at = f"model.layers.{layer}"
        shapes |= linear(f"{at}.self_attn.qkv_proj", 9216, 3072, bias=False)
        shapes |= linear(f"{at}.self_attn.o_proj", 3072, 3072, bias=False)
        shapes |= linear(f"{at}.mlp.gate_up_proj", 16384, 3072, bias=False)
        shapes |= linear(f"{at}.mlp.down_proj", 3072, 8192, bias=False)
        shapes |= {f"{at}.{norm}.weight": (3072,) for norm in ("input_layernorm", "post_attention_layernorm")}
    return shapes


def qwen_keys() -> Shapes:
    """Qwen/Qwen2.5-VL-7B-Instruct."""
    shapes: Shapes = {"model.embed_tokens.weight": (152064, 3584), "lm_head.weight": (152064, 3584)}
    shapes |= {"visual.patch_embed.proj.weight": (1280, 3, 2, 14, 14), "visual.merger.ln_q.weight": (1280,)}
    shapes |= linear("visual.merger.mlp.0", 5120, 5120, bias=True) | linear(
        "visual.merger.mlp.2", 3584, 5120, bias=True
    )
    for block in range(32):
        at = f"visual.blocks.{block}"
        shapes |= linear(f"{at}.attn.qkv", 3840, 1280, bias=True) | linear(f"{at}.attn.proj", 1280, 1280, bias=True)
        for name in ("gate", "up"):
            shapes |= linear(f"{at}.mlp.{name}_proj", 3420, 1280, bias=True)
        shapes |= linear(f"{at}.mlp.down_proj", 1280, 3420, bias=True)
        shapes |= {f"{at}.{norm}.weight": (1280,) for norm in ("norm1", "norm2")}
    return shapes | llama("model.", 28, 3584, 18944, 512, bias=True)


def llava_keys() -> Shapes:
    """llava-hf/llava-v1.6-vicuna-13b-hf."""
    shapes: Shapes = {
        "image_newline": (5120,),
        "language_model.lm_head.weight": (32064, 5120),
        "language_model.model.embed_tokens.weight": (32064, 5120),
    }
    shapes |= linear("multi_modal_projector.linear_1", 5120, 1024, bias=True)
    shapes |= linear("multi_modal_projector.linear_2", 5120, 5120, bias=True)
    shapes |= clip("vision_tower.vision_model.", range(24))
    return shapes | llama("language_model.model.", 40, 5120, 13824, 5120, bias=False)


def build(config: dict[str, Any]) -> tuple[Family, nn.Module]:
    """The full-size module on the meta device."""
    family = family_of(config)
    return family, empty(lambda: family.build(config))


@pytest.mark.parametrize(
    ("config", "keys", "unread"),
    [
        # the head for next words, the tower's last layer and its norm
        pytest.param(PHI, phi_keys(), 1 + 2 + 16, id="phi"),
        pytest.param(QWEN, qwen_keys(), 1, id="qwen"),
        pytest.param(LLAVA, llava_keys(), 1 + 2 + 16, id="llava"),
    ],
)
def test_every_released_key_has_its_place(config: dict[str, Any], keys: Shapes, unread: int) -> None:
    family, module = build(config)
    assert all(parameter.is_meta for parameter in module.parameters())
    rename = family.rename(config)
    named = {key: rename(key) for key in keys}
    placed = {name: keys[key] for key, name in named.items() if name is not None}
    assert placed == {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    assert sum(name is None for name in named.values()) == unread


NEWER = {
    "model.visual.blocks.3.attn.qkv.weight": (QWEN, "visual.blocks.3.attn.qkv.weight"),
    "model.language_model.layers.7.mlp.up_proj.weight": (QWEN, "model.layers.7.mlp.up_proj.weight"),
    "model.language_model.norm.weight": (LLAVA, "language_model.model.norm.weight"),
    "model.multi_modal_projector.linear_1.bias": (LLAVA, "multi_modal_projector.linear_1.bias"),
    "model.image_newline": (LLAVA, "image_newline"),
    "model.vision_tower.pre_layrnorm.weight": (LLAVA, "vision_tower.vision_model.pre_layrnorm.weight"),
    "base_model.model.model.layers.0.self_attn.qkv_proj.weight": (PHI, "model.layers.0.self_attn.qkv_proj.weight"),
}


@pytest.mark.parametrize("name", NEWER)
def test_names_of_newer_releases(name: str) -> None:
    config, expected = NEWER[name]
    assert family_of(config).rename(config)(name) == expected


@pytest.mark.parametrize(
    ("config", "targets", "millions"),
    [
        pytest.param(PHI, ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"), 201.3, id="phi"),
        pytest.param(
            QWEN, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), 323.0, id="qwen"
        ),
        pytest.param(
            LLAVA, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), 500.7, id="llava"
        ),
    ],
)
def test_lora_of_rank_128_has_the_specified_size(
    config: dict[str, Any], targets: tuple[str, ...], millions: float
) -> None:
    _, module = build(config)
    decoder = {id(part) for layer in module.layers for part in layer.modules()}  # type: ignore[union-attr]
    matrices = [
        part
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and name.endswith(targets) and id(part) in decoder
    ]
    assert round(sum(128 * (part.in_features + part.out_features) for part in matrices) / 1e6, 1) == millions


def test_sizes_of_phi() -> None:
    """4.15 billion with the head for next words and the whole tower; projector 22.0 and SkipCA 28.3 million."""
    total = sum(_count(shape) for key, shape in phi_keys().items() if not key.endswith("wte.weight"))
    assert round(total / 1e9, 2) == 4.15
    _, module = build(PHI)
    projector = [shape for name, shape in module.named_parameters() if ".img_projection." in name]
    assert round(sum(part.numel() for part in projector) / 1e6, 1) == 22.0
    head = empty(lambda: PublishedHead(3072, 1, skipca=True, eps=1e-5))
    assert round(sum(part.numel() for part in head.parameters()) / 1e6, 1) == 28.3


def _count(shape: tuple[int, ...]) -> int:
    product = 1
    for side in shape:
        product *= side
    return product
