"""The LAION aesthetic predictor v2: how much people like a picture, whatever the prompt says.

score = five linear layers of CLIP's unit embedding of the picture, 1 to 10. The prompt is only counted: pair it with a
reward that reads it.

Reference: github.com/christophschuhmann/improved-aesthetic-predictor.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rewards.clip import model_folder
from rewards.devices import device_of, dtype_of
from rewards.linear_head import LinearHead
from rewards.llava.backbone import Foreign
from rewards.llava.weights import empty, fill, read_json, weight_files
from rewards.states import find_file, place, read_state
from rewards.views import CentreCrop
from rewards.vision import VisionReward

CHECKPOINT, FILE = "trl-lib/ddpo-aesthetic-predictor", "aesthetic-model.pth"
BASE = "openai/clip-vit-large-patch14"


class Aesthetic(nn.Module):
    """The network of `VisionReward`.

    Args:
        tower: transformers' CLIP vision tower with its projection.
        head: of the embedding.
    """

    def __init__(self, tower: Foreign, head: LinearHead) -> None:
        super().__init__()
        self.tower = tower
        self.head = head

    @property
    def weight(self) -> Tensor:
        """The one that meets the pixels."""
        weight: Tensor = self.tower.vision_model.embeddings.patch_embedding.weight
        return weight

    def text(self, prompts: Sequence[str]) -> Tensor:
        """Nothing, (P, 0)."""
        return torch.empty(len(prompts), 0, device=self.weight.device)

    def score(self, pixels: Tensor, text: Tensor) -> Tensor:
        """Scores (B,) of normalised pixels (B, 3, S, S)."""
        embedding = self.tower(pixel_values=pixels).image_embeds.float()  # (B, D)
        scores: Tensor = self.head(normalize(embedding, dim=-1))
        return scores


def load_aesthetic(
    checkpoint: str | Path = CHECKPOINT,
    *,
    base: str | Path = BASE,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    batch_size: int = 16,
) -> VisionReward:
    """The predictor from its head's file and the CLIP that it was trained on.

    Args:
        checkpoint: the head: path of sac+logos+ava1-l14-linearMSE.pth, or folder or hub name with aesthetic-model.pth.
        base: folder or hub name of CLIP ViT-L/14 in transformers' layout; its text tower is not loaded.
        device: a GPU if None and there is one.
        dtype: "float32", "bfloat16" or "float16"; the head is float32.
        batch_size: pictures in one forward pass.

    Raises:
        RewardError: no such checkpoint, device or dtype.
    """
    where, number = device_of(device), dtype_of(dtype)
    folder = model_folder(base)
    tower = _tower(folder, where, number)
    file = find_file(checkpoint, FILE)
    head = empty(lambda: LinearHead(tower.config.projection_dim))
    place(head, read_state(file), file)
    network = Aesthetic(tower, head.to(where))  # type: ignore[arg-type]
    view = CentreCrop(tower.config.image_size)
    return VisionReward("aesthetic", network, view, batch_size=batch_size, files=[file, *weight_files(folder)])


def _tower(folder: Path, device: torch.device | str, dtype: torch.dtype) -> Foreign:
    from transformers import CLIPConfig, CLIPVisionModelWithProjection

    config = CLIPConfig(**read_json(folder / "config.json"))
    vision: Foreign = config.vision_config
    vision.projection_dim = config.projection_dim
    tower = empty(lambda: CLIPVisionModelWithProjection(vision))

    def kept(name: str) -> str | None:
        visual = name.startswith(("vision_model.", "visual_projection.")) and not name.endswith("position_ids")
        return name if visual else None

    fill(tower, weight_files(folder), kept, device=device, dtype=dtype)
    return tower
