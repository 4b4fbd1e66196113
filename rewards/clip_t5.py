"""CLIP-FlanT5, the model that VQAScore was published with: CLIP's patches among the words of a T5.

References: Lin et al., Evaluating text-to-visual generation with image-to-text generation, ECCV 2024;
github.com/linzhiqiu/t2v_metrics, version 3.0.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewards.errors import CheckpointError
from rewards.llava.backbone import Foreign
from rewards.llava.families import load_tokenizer, resolve
from rewards.llava.tower import clip_tower, patch_features
from rewards.llava.weights import empty, fill, read_json, tensors, weight_files
from rewards.single import Look
from rewards.views import Square
from rewards.vision import normalised

KIND = "clip_t5"
TOWER = "openai/clip-vit-large-patch14-336"
TOKENIZER = "google/flan-t5-xl"
_BEFORE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: "
)
_AFTER = "\n{} ASSISTANT: "
_COLOUR = (122, 116, 104)  # CLIP's mean in bytes, cut off
_SETTINGS = ("*.json", "*.model")
_WEIGHTS = (*_SETTINGS, "*.safetensors", "*.bin")


class ClipT5(nn.Module):
    """T5 that reads a picture's patches.

    Args:
        config: the checkpoint's config.json.
        vision: transformers' settings of CLIP's tower.
    """

    def __init__(self, config: dict[str, Any], vision: Foreign) -> None:
        from transformers import T5Config, T5ForConditionalGeneration

        super().__init__()
        text = T5Config(**{name: value for name, value in config.items() if name != "model_type"})
        self.t5: Foreign = T5ForConditionalGeneration(text)
        self.t5.encoder.embed_tokens = self.t5.decoder.embed_tokens = self.t5.shared
        self.tower: Foreign = clip_tower(vision, config.get("mm_vision_select_layer", -2))
        self.mm_projector = nn.Sequential(
            nn.Linear(vision.hidden_size, text.d_model), nn.GELU(), nn.Linear(text.d_model, text.d_model)
        )
        self.tokenizer: Foreign = None

    def answer(self, look: Look, question: str, answer: str) -> Tensor:
        """Mean log-probability () of the tokens of an answer, the end token among them, as in the published code."""
        view = Square(self.tower.config.image_size, _COLOUR)
        pixels = view.of_tensor(look[None]) if isinstance(look, Tensor) else view.of_picture(look)[None]
        words = self.t5.shared
        features = patch_features(self.tower, normalised(pixels.to(words.weight.device)))
        patches = self.mm_projector(features)[0]  # (V, H)
        before, after, labels = (self._ids(text) for text in (_BEFORE, _AFTER.format(question), answer))
        row = torch.cat([words(before), patches, words(after)])[None]  # (1, L, H)
        logits = self.t5(inputs_embeds=row, labels=labels[None]).logits[0]  # (A, vocabulary)
        scores: Tensor = logits.float().log_softmax(-1).gather(1, labels[:, None])
        return scores.mean()

    def _ids(self, text: str) -> Tensor:
        """Token numbers of one piece; each ends with T5's end token, those before and behind the picture too."""
        return torch.tensor(self.tokenizer(text).input_ids, device=self.t5.shared.weight.device)


def load_clip_t5(
    folder: Path,
    *,
    tower: str | Path = TOWER,
    tokenizer: str | Path = TOKENIZER,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ClipT5:
    """The model from its checkpoint, CLIP's tower and T5's tokenizer.

    Args:
        folder: with config.json of model_type "clip_t5" and weights.
        tower: folder or hub name of CLIP ViT-L/14 at 336 pixels, for a checkpoint without the tower's weights.
        tokenizer: folder or hub name of Flan-T5's tokenizer, where `folder` has none.
        device: where it runs.
        dtype: of its weights.

    Raises:
        CheckpointError: a part is missing or damaged.
    """
    from transformers import CLIPConfig

    config = read_json(folder / "config.json")
    if config.get("mm_projector_type", "mlp2x_gelu") != "mlp2x_gelu":
        raise CheckpointError(f"Got mm_projector_type {config['mm_projector_type']!r}; expected 'mlp2x_gelu'.")
    files = weight_files(folder)
    vision: Foreign = CLIPConfig(**read_json(resolve(tower, _SETTINGS) / "config.json")).vision_config
    network = empty(lambda: ClipT5(config, vision))
    assert isinstance(network, ClipT5)
    if not _has_tower(folder, files):
        files = [*files, *weight_files(resolve(tower, _WEIGHTS))]
    layers = network.tower.config.num_hidden_layers

    def renamed(name: str) -> str | None:
        return checkpoint_name(name, layers)

    fill(network, files, renamed, device=device, dtype=dtype)
    network.tokenizer = load_tokenizer(
        folder if (folder / "tokenizer.json").is_file() else resolve(tokenizer, _SETTINGS)
    )
    return network


def checkpoint_name(name: str, layers: int) -> str | None:
    """Our parameter's name for one of the checkpoint or of CLIP; None for what is not needed.

    Args:
        name: in a file.
        layers: of the tower that are run.
    """
    vision = re.fullmatch(r"(?:vision_tower\.vision_tower\.)?vision_model\.(.+)", name)
    if vision:
        part = vision[1]
        layer = re.match(r"encoder\.layers\.(\d+)\.", part)
        unread = part.startswith("post_layernorm") or part.endswith("position_ids")
        return None if unread or (layer and int(layer[1]) >= layers) else f"tower.{part}"
    if name.startswith("mm_projector."):
        return name
    if name.split(".")[0] in ("shared", "encoder", "decoder", "lm_head") and "embed_tokens" not in name:
        return f"t5.{name}"
    return None


def _has_tower(folder: Path, files: list[Path]) -> bool:
    """Whether the checkpoint brings the weights of CLIP's tower; asked of an index where there is one."""
    index = next(folder.glob("*.index.json"), None)
    names = read_json(index)["weight_map"] if index else (name for file in files for name, _ in tensors(file))
    return any(name.startswith("vision_tower.") for name in names)
