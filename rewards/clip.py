"""CLIP as rewards need it: unit embeddings of pictures and prompts.

A prompt longer than the text tower's 77 tokens (begin and end included) is cut there, as in the published code; a
prompt's embedding is read at its end token, so that padding and other prompts cannot change it.

Reference: Radford et al., Learning transferable visual models from natural language supervision, 2021.
"""

import html
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rewards.errors import CheckpointError
from rewards.llava.backbone import Foreign
from rewards.llava.families import load_tokenizer, resolve
from rewards.llava.weights import empty, fill, read_json, weight_files

VIT_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"  # whose tokenizer PickScore, HPSv2 and MPS use
_TEXT = ("*.json", "*.txt")
_PLAIN = (  # curly quotation marks, letters as wide as an ideogram, ligatures
    dict.fromkeys(map(ord, "‘’‚‛"), "'")
    | dict.fromkeys(map(ord, "“”„‟"), '"')
    | {
        code: unicodedata.normalize("NFKC", chr(code))
        for code in (0x3000, *range(0xFF01, 0xFFF0), *range(0xFB00, 0xFB07))
    }
)


class Clip:
    """Two towers and what leads from them to one space.

    Args:
        model: transformers' `CLIPModel` with float32 weights.
        tokenizer: its fast tokenizer.
        dtype: that the towers are brought to.
        files: that it was read from.
    """

    def __init__(
        self, model: Foreign, tokenizer: Foreign, dtype: torch.dtype = torch.float32, files: Sequence[Path] = ()
    ) -> None:
        self.files = tuple(files)
        self.scale = float(model.logit_scale.exp())
        self.model = model.to(dtype)
        self._tokenizer = tokenizer
        self._length = int(model.config.text_config.max_position_embeddings)

    @property
    def weight(self) -> Tensor:
        """The one that meets the pixels, for its device and dtype."""
        weight: Tensor = self.model.vision_model.embeddings.patch_embedding.weight
        return weight

    @property
    def edge(self) -> int:
        """Height and width of the pictures that it takes, in pixels."""
        return int(self.model.config.vision_config.image_size)

    def text(self, prompts: Sequence[str]) -> Tensor:
        """Unit embeddings (P, D) of prompts, float32."""
        ids, ends = self.tokens(prompts)
        states = self.model.text_model(input_ids=ids).last_hidden_state  # (P, L, W)
        return normalize(
            self.model.text_projection(states[torch.arange(len(ids), device=ends.device), ends]).float(), dim=-1
        )

    def image(self, pixels: Tensor) -> Tensor:
        """Unit embeddings (B, D) of normalised pixels (B, 3, S, S), float32."""
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output  # (B, W)
        return normalize(self.model.visual_projection(pooled).float(), dim=-1)

    def tokens(self, prompts: Sequence[str], *, full: bool = False) -> tuple[Tensor, Tensor]:
        """Token numbers (P, L) and the place of each prompt's end token (P,).

        Args:
            prompts: cut to the tower's length.
            full: fill up to the tower's length, rather than to the longest prompt.
        """
        rows = self._tokenizer(list(prompts), max_length=self._length, truncation=True).input_ids
        end = self._tokenizer.eos_token_id
        filler = end if self._tokenizer.pad_token_id is None else self._tokenizer.pad_token_id
        length = self._length if full else max(map(len, rows))
        ids = torch.tensor([row + [filler] * (length - len(row)) for row in rows])  # (P, L)
        ends = (ids == end).int().argmax(1)  # the first one: the filler may be the same token
        return ids.to(self.weight.device), ends.to(self.weight.device)


@dataclass(frozen=True)
class Similarity:
    """The network of `VisionReward` that gives the cosine of picture and prompt.

    Attributes:
        clip: the towers.
        factor: of the cosine.
        words: what becomes of a prompt before it is tokenized.
    """

    clip: Clip
    factor: float = 1.0
    words: Callable[[str], str] = str

    @property
    def weight(self) -> Tensor:
        """The one that meets the pixels."""
        return self.clip.weight

    def text(self, prompts: Sequence[str]) -> Tensor:
        """Unit embeddings (P, D)."""
        return self.clip.text([self.words(prompt) for prompt in prompts])

    def score(self, pixels: Tensor, text: Tensor) -> Tensor:
        """Scores (B,) of normalised pixels (B, 3, S, S) with unit embeddings (B, D)."""
        return self.factor * (self.clip.image(pixels) * text).sum(-1)


def clean(prompt: str) -> str:
    """The prompt without HTML entities (undone twice), curly quotation marks, wide letters and ligatures.

    OpenAI's code and open_clip's clean prompts so, with ftfy; what else ftfy does, above all to text in a wrong
    encoding, is not repeated.
    """
    return html.unescape(html.unescape(prompt.translate(_PLAIN)))


def load_clip(
    checkpoint: str | Path,
    *,
    tokenizer: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Clip:
    """CLIP in transformers' layout from a folder or the hub.

    Args:
        checkpoint: with config.json and model.safetensors or pytorch_model.bin.
        tokenizer: folder or hub name of the tokenizer for a checkpoint that has none of its own.
        device: where it runs.
        dtype: of the towers.

    Raises:
        CheckpointError: no such folder, or damaged weights.
    """
    from transformers import CLIPConfig, CLIPModel

    folder = model_folder(checkpoint)
    config = CLIPConfig(**read_json(folder / "config.json"))
    model = empty(lambda: CLIPModel(config))
    files = weight_files(folder)
    fill(model, files, lambda name: None if name.endswith("position_ids") else name, device=device)
    return Clip(model, clip_tokenizer(folder, tokenizer), dtype, files)


def clip_tokenizer(folder: Path, other: str | Path | None = None) -> Foreign:
    """The tokenizer in `folder`, or in the folder or hub repository `other` where it has none.

    Raises:
        CheckpointError: there is none, or it has no end token.
    """
    own = other is None or (folder / "tokenizer.json").is_file()
    tokenizer = load_tokenizer(folder if own else resolve(str(other), _TEXT))
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"The tokenizer for {folder} names no end token; expected the tokenizer of a CLIP.")
    return tokenizer


def model_folder(name: str | Path) -> Path:
    """The folder itself, or the hub's repository of that name: settings and weights, safetensors where there are any.

    Raises:
        CheckpointError: neither exists.
    """
    folder = resolve(name, (*_TEXT, "model*.safetensors"))
    if any(folder.glob("model*.safetensors")):
        return folder
    return resolve(name, (*_TEXT, "pytorch_model*.bin"))
