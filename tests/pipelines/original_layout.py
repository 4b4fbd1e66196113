"""Writes a tiny Stable Diffusion as its makers' single file: the layout that checkpoints on model sites have.

The names follow the original code (CompVis/stable-diffusion): the UNet's blocks are counted through, the decoder's from
the output, attention in the VAE is a 1×1 convolution. One table serves all blocks, since this model has two of each.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def save_original(pipe: Any, path: Path) -> None:
    """Write a Stable Diffusion pipeline to one file in the original layout."""
    layers = pipe.unet.config.layers_per_block
    weights = {f"model.diffusion_model.{unet_name(key, layers)}": w for key, w in pipe.unet.state_dict().items()}
    weights |= {
        f"first_stage_model.{vae_name(key)}": as_convolution(key, w) for key, w in pipe.vae.state_dict().items()
    }
    for key, weight in pipe.text_encoder.state_dict().items():
        weights[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = weight
    save_file({key: weight.contiguous() for key, weight in weights.items()}, path)


def unet_name(key: str, layers: int) -> str:
    stem, _, leaf = key.rpartition(".")
    if stem in ENDS:
        return f"{ENDS[stem]}.{leaf}"
    mid = re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", key)
    if mid:
        place = 1 if mid[1] == "attentions" else 2 * int(mid[2])
        return f"middle_block.{place}.{inner(mid[3])}"
    block = re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|\w+samplers)\.(\d)\.(.*)", key)
    assert block is not None
    way, number, part, index, rest = block.groups()
    first = int(number) * (layers + 1) + (way == "down")  # the blocks of one level start here
    side = "input_blocks" if way == "down" else "output_blocks"
    if part == "downsamplers":
        return f"{side}.{first + layers}.0.op.{leaf}"
    if part == "upsamplers":
        return f"{side}.{first + layers}.2.conv.{leaf}"
    return f"{side}.{first + int(index)}.{int(part == 'attentions')}.{inner(rest)}"


def inner(rest: str) -> str:
    first, _, tail = rest.partition(".")
    return f"{RESNET[first]}.{tail}" if first in RESNET else rest


def vae_name(key: str) -> str:
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = re.sub(r"mid_block\.attentions\.0\.(.*)\.(\w+)$", lambda m: f"mid.attn_1.{ATTENTION[m[1]]}.{m[2]}", key)
    key = re.sub(r"down_blocks\.(\d)\.(resnets|downsamplers)", lambda m: f"down.{m[1]}.{m[2]}", key)
    key = re.sub(r"up_blocks\.(\d)\.(resnets|upsamplers)", lambda m: f"up.{1 - int(m[1])}.{m[2]}", key)
    key = re.sub(r"(down|up)samplers\.0", r"\1sample", key).replace(".resnets.", ".block.")
    return key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def as_convolution(key: str, weight: Tensor) -> Tensor:
    is_map = ".attentions." in key and weight.ndim == 2
    return weight[:, :, None, None] if is_map else weight
