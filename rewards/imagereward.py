"""ImageReward: BLIP reads the prompt while looking at the picture, and a head scores its first token.

score = (head − 0.16717) / 1.03334, typically −2.3 to 2.25. The head's mean and spread are those of the authors'
validation set. A prompt is cut after 35 tokens, begin and end included, as in the published code.

References: Xu et al., ImageReward, NeurIPS 2023; github.com/zai-org/ImageReward.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewards.devices import device_of, dtype_of
from rewards.errors import CheckpointError
from rewards.linear_head import LinearHead
from rewards.llava.backbone import Foreign
from rewards.llava.families import load_tokenizer, resolve
from rewards.llava.weights import empty, read_json
from rewards.states import State, find_file, place, read_state
from rewards.views import CentreCrop
from rewards.vision import VisionReward

CHECKPOINT = "THUDM/ImageReward"
FILE, SETTINGS = "ImageReward.pt", "med_config.json"
TOKENIZER = "google-bert/bert-base-uncased"
_MEAN, _STD = 0.16717362830052426, 1.0333394966054072
_TOKENS = 35
_MED: dict[str, Any] = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "vocab_size": 30524, "max_position_embeddings": 512, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
}  # fmt: skip
_VISION = (
    (r"cls_token", "embeddings.class_embedding"),
    (r"pos_embed", "embeddings.position_embedding"),
    (r"patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"blocks\.(\d+)\.attn\.", r"encoder.layers.\1.self_attn."),
    (r"blocks\.", "encoder.layers."),
    (r"norm\.", "post_layernorm."),
)


class ImageReward(nn.Module):
    """The network of `VisionReward`.

    Args:
        vision: transformers' settings of the vision tower.
        text: transformers' settings of the text tower.
    """

    def __init__(self, vision: Foreign, text: Foreign) -> None:
        from transformers.models.blip.modeling_blip import BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        super().__init__()
        self.vision: Foreign = BlipVisionModel(vision)
        self.words: Foreign = BlipTextModel(text, add_pooling_layer=False)
        self.head = LinearHead(text.hidden_size)
        self.tokenizer: Foreign = None

    @property
    def weight(self) -> Tensor:
        """The one that meets the pixels."""
        weight: Tensor = self.vision.embeddings.patch_embedding.weight
        return weight

    def text(self, prompts: Sequence[str]) -> Tensor:
        """Token numbers and which of them are there, (P, 2, 35)."""
        encoded = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=_TOKENS, return_tensors="pt"
        )
        return torch.stack([encoded.input_ids, encoded.attention_mask], dim=1).to(self.weight.device)

    def score(self, pixels: Tensor, text: Tensor) -> Tensor:
        """Scores (B,) of normalised pixels (B, 3, S, S) with tokens (B, 2, 35)."""
        seen = self.vision(pixel_values=pixels).last_hidden_state  # (B, V, W)
        states = self.words(
            input_ids=text[:, 0],
            attention_mask=text[:, 1],
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
        ).last_hidden_state  # (B, 35, H)
        scores: Tensor = (self.head(states[:, 0].float()) - _MEAN) / _STD
        return scores


def load_imagereward(
    checkpoint: str | Path = CHECKPOINT,
    *,
    tokenizer: str | Path = TOKENIZER,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    batch_size: int = 16,
) -> VisionReward:
    """ImageReward from its published file.

    Args:
        checkpoint: folder or hub name with ImageReward.pt and med_config.json, or the path of such a file.
        tokenizer: folder or hub name of BERT's tokenizer, where the checkpoint's folder has none.
        device: a GPU if None and there is one.
        dtype: "float32", "bfloat16" or "float16"; the head is float32.
        batch_size: pictures in one forward pass.

    Raises:
        RewardError: no such checkpoint, device or dtype.
    """
    where, number = device_of(device), dtype_of(dtype)
    file = find_file(checkpoint, FILE)
    state = dict(filter(None, (renamed(name, tensor) for name, tensor in read_state(file).items())))
    network = build(state, _settings(checkpoint), file)
    place(network, state, file)
    words = file.parent if (file.parent / "tokenizer.json").is_file() else resolve(tokenizer, ("*.json", "*.txt"))
    network.tokenizer = load_tokenizer(words)
    network.to(where, number).head.float()
    view = CentreCrop(network.vision.config.image_size)
    return VisionReward("imagereward", network, view, batch_size=batch_size, files=[file])


def renamed(name: str, tensor: Tensor) -> tuple[str, Tensor] | None:
    """Our name and the tensor for one of the checkpoint's; None for what no score needs."""
    if name.startswith("blip.visual_encoder."):
        short = name.removeprefix("blip.visual_encoder.")
        for old, new in _VISION:
            short, count = re.subn(f"^{old}", new, short)
            if count:
                break
        return f"vision.{short}", tensor
    if name.startswith("blip.text_encoder.") and not name.endswith("position_ids"):
        return f"words.{name.removeprefix('blip.text_encoder.')}", tensor
    return (f"head.{name.removeprefix('mlp.')}", tensor) if name.startswith("mlp.") else None


def build(state: State, med: dict[str, Any], source: Path) -> ImageReward:
    """The empty network that `state`, under our names, belongs to; BLIP's towers have heads of 64 channels.

    Raises:
        CheckpointError: it does not hold a BLIP.
    """
    from transformers import BlipTextConfig, BlipVisionConfig

    try:
        width, _, patch, _ = state["vision.embeddings.patch_embedding.weight"].shape
        patches = state["vision.embeddings.position_embedding"].shape[1] - 1
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{source} holds no BLIP; check that it is ImageReward.pt.") from error
    layers = [name for name in state if re.fullmatch(r"vision\.encoder\.layers\.\d+\.layer_norm1\.weight", name)]
    vision = BlipVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=len(layers),
        num_attention_heads=width // 64, image_size=math.isqrt(patches) * patch, patch_size=patch,
        layer_norm_eps=1e-6, hidden_act="gelu",
    )  # fmt: skip
    known = {name: med.get(name, value) for name, value in _MED.items()}
    text = BlipTextConfig(**known, encoder_hidden_size=width, bos_token_id=None, eos_token_id=None, sep_token_id=None)
    return empty(lambda: ImageReward(vision, text))  # type: ignore[return-value]


def _settings(checkpoint: str | Path) -> dict[str, Any]:
    """The text tower's settings beside the weights; those of BLIP where there are none."""
    folder = Path(checkpoint).parent if Path(checkpoint).is_file() else resolve(checkpoint, [SETTINGS])
    return read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
