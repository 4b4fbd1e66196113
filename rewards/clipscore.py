"""CLIPScore: the cosine between a picture and its prompt, in CLIP's space.

score = cos(image, text), typically 0.15 to 0.40. The classic definition, 2.5 max(cos, 0), ranks alike.

Reference: Hessel et al., CLIPScore: a reference-free evaluation metric for image captioning, EMNLP 2021.
"""

from pathlib import Path

import torch

from rewards.clip import Similarity, clean, load_clip
from rewards.devices import device_of, dtype_of
from rewards.views import CentreCrop
from rewards.vision import VisionReward

CHECKPOINT = "openai/clip-vit-large-patch14"


def load_clipscore(
    checkpoint: str | Path = CHECKPOINT,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    batch_size: int = 16,
) -> VisionReward:
    """CLIPScore of any CLIP; pictures as OpenAI's own code prepares them.

    Args:
        checkpoint: folder or hub name of a CLIP in transformers' layout, with its tokenizer.
        device: a GPU if None and there is one.
        dtype: "float32", "bfloat16" or "float16".
        batch_size: pictures in one forward pass.

    Raises:
        RewardError: no such checkpoint, device or dtype.
    """
    clip = load_clip(checkpoint, device=device_of(device), dtype=dtype_of(dtype))
    return VisionReward(
        "clipscore",
        Similarity(clip, words=clean),
        CentreCrop(clip.edge),
        batch_size=batch_size,
        files=clip.files,
    )
