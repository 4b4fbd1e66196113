"""Human Preference Score v2 and v2.1: a CLIP ViT-H trained on rankings of generated pictures.

score = cos(image, text), typically 0.20 to 0.35. The whole picture is seen, with black margins.

References: Wu et al., Human preference score v2, 2023; github.com/tgxs002/HPSv2.
"""

from pathlib import Path

import torch

from rewards.clip import VIT_H, Similarity, clean, clip_tokenizer
from rewards.devices import device_of, dtype_of
from rewards.nearest import check_variant
from rewards.open_clip import load_open_clip, read_settings
from rewards.states import find_file, read_state
from rewards.views import Letterbox
from rewards.vision import VisionReward

CHECKPOINT = "xswu/HPSv2"
FILES = {"v2.1": "HPS_v2.1_compressed.pt", "v2.0": "HPS_v2_compressed.pt", "v2": "HPS_v2_compressed.pt"}


def load_hpsv2(
    checkpoint: str | Path = CHECKPOINT,
    *,
    tokenizer: str | Path = VIT_H,
    antialias: bool = True,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    batch_size: int = 16,
    variant: str = "v2.1",
) -> VisionReward:
    """HPSv2; `load_reward("hpsv2")` is v2.1, "hpsv2:v2.0" the first.

    Args:
        checkpoint: folder or hub name with the published files, or the path of one of them.
        tokenizer: folder or hub name of CLIP's tokenizer, where the checkpoint's folder has none.
        antialias: False repeats the published code under torchvision before 0.17.
        device: a GPU if None and there is one.
        dtype: "float32", "bfloat16" or "float16".
        batch_size: pictures in one forward pass.
        variant: "v2.1" or "v2.0".

    Raises:
        RewardError: no such variant, checkpoint, device or dtype.
    """
    check_variant("hpsv2", variant, tuple(FILES))
    place, number = device_of(device), dtype_of(dtype)
    file = find_file(checkpoint, FILES[variant])
    words = clip_tokenizer(file.parent, tokenizer)
    clip = load_open_clip(read_state(file), read_settings(file.parent), words, file, device=place, dtype=number)
    return VisionReward(
        "hpsv2",
        Similarity(clip, words=clean),
        Letterbox(clip.edge, antialias),
        batch_size=batch_size,
        files=clip.files,
        settings=f"antialias {antialias}",
    )
