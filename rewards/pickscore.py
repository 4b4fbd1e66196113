"""PickScore: a CLIP trained on the choices of users between two pictures.

score = exp(logit_scale) cos(image, text), typically 17 to 24; differences are nats of preference.

Reference: Kirstain et al., Pick-a-Pic, NeurIPS 2023; github.com/yuvalkirstain/PickScore.
"""

from pathlib import Path

import torch

from rewards.clip import VIT_H, Similarity, load_clip
from rewards.devices import device_of, dtype_of
from rewards.views import CentreCrop
from rewards.vision import VisionReward

CHECKPOINT = "yuvalkirstain/PickScore_v1"


def load_pickscore(
    checkpoint: str | Path = CHECKPOINT,
    *,
    tokenizer: str | Path = VIT_H,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    batch_size: int = 16,
) -> VisionReward:
    """PickScore; pictures as the image processor of transformers prepares them.

    Args:
        checkpoint: folder or hub name.
        tokenizer: folder or hub name of the tokenizer, where the checkpoint has none of its own.
        device: a GPU if None and there is one.
        dtype: "float32", "bfloat16" or "float16".
        batch_size: pictures in one forward pass.

    Raises:
        RewardError: no such checkpoint, device or dtype.
    """
    clip = load_clip(checkpoint, tokenizer=tokenizer, device=device_of(device), dtype=dtype_of(dtype))
    return VisionReward(
        "pickscore",
        Similarity(clip, clip.scale),
        CentreCrop(clip.edge, odd="floored"),
        batch_size=batch_size,
        files=clip.files,
    )
