"""Tiny Qwen models with vision, as folders; weights from seeds, see `tiny`."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.rewards.standard.tiny import bytes_as_letters, weights, write_tokenizer

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>", "<|Reward|>",
]  # fmt: skip
NAMES = [*bytes_as_letters(), "Ye", "Yes", *SPECIAL]


def token(name: str) -> int:
    """Number of a token."""
    return NAMES.index(name)


def config(kind: str) -> dict[str, Any]:
    """The config.json of a "qwen2_vl", "qwen2_5_vl" or "qwen3_vl"."""
    if kind == "qwen3_vl":
        return _config_of_qwen3()
    vision: dict[str, Any] = {"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2}
    if kind == "qwen2_vl":
        vision |= {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    else:
        vision |= {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "window_size": 56}
        vision |= {"fullatt_block_indexes": [1]}
    rope = {"rope_type": "default", "type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1000000.0}
    text = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": len(NAMES), "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
        "rope_scaling": rope, "bos_token_id": token("<|endoftext|>"), "eos_token_id": token("<|im_end|>"),
        "tie_word_embeddings": False,
    }  # fmt: skip
    return {
        **text, "model_type": kind, "image_token_id": token("<|image_pad|>"), "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"), "vision_end_token_id": token("<|vision_end|>"),
        "vision_config": vision,
    }  # fmt: skip


def _config_of_qwen3() -> dict[str, Any]:
    older = config("qwen2_5_vl")
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    vision = {
        "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 16,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32, "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }  # fmt: skip
    text = {name: value for name, value in older.items() if name not in (*names, "vision_config", "model_type")}
    text |= {"num_hidden_layers": 3, "head_dim": 8}
    return {"model_type": "qwen3_vl", "text_config": text, "vision_config": vision} | {
        name: older[name] for name in names
    }


def build(kind: str) -> Any:
    """The model on the meta device."""
    import transformers

    stem = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[kind]
    with torch.device("meta"):
        settings = getattr(transformers, f"{stem}Config")(**config(kind))
        return getattr(transformers, f"{stem}ForConditionalGeneration")(settings)


def state(kind: str, seed: int) -> dict[str, torch.Tensor]:
    """Its weights, under transformers' names of today."""
    return weights({name: tuple(weight.shape) for name, weight in build(kind).named_parameters()}, seed)


def write_qwen(folder: Path, kind: str, seed: int, **processor: Any) -> None:
    """The whole model in a folder."""
    write_qwen_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(config(kind)))
    settings = {
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_processor_type": "Qwen2VLImageProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | processor))
    save_file(state(kind, seed), folder / "model.safetensors", {"format": "pt"})


def write_qwen_tokenizer(folder: Path) -> None:
    """Qwen's tokenizer of bytes with two merges."""
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(NAMES)}, [("Y", "e"), ("Ye", "s")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    write_tokenizer(tokenizer, folder, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def head_shapes() -> dict[str, tuple[int, ...]]:
    """Of HPSv3's head over 32 channels."""
    sides = {"0": (1024, 32), "3": (16, 1024), "5": (2, 16)}
    shapes: dict[str, tuple[int, ...]] = {}
    for number, shape in sides.items():
        shapes |= {f"rm_head.{number}.weight": shape, f"rm_head.{number}.bias": shape[:1]}
    return shapes
