"""Models that see and write, of transformers: a picture and a question become the inputs of one forward pass.

Qwen's pictures are prepared here, exactly as by its published PIL code and with gradients for tensors; its text is
written out, so that a chat template that changes cannot change a score. Every other family goes through its own
processor, in PIL's arithmetic and without gradients.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from rewards.errors import RewardError
from rewards.llava.backbone import Foreign
from rewards.llava.families import load_tokenizer, resolve
from rewards.llava.layouts import qwen_limits
from rewards.llava.normalise import Normalise
from rewards.llava.qwen_resize import MERGE, flat, patches, smart_size
from rewards.llava.weights import read_json, weight_files
from rewards.single import Look
from rewards.views import resized, to_tensor
from rewards.whole import load_whole, processor_of

Inputs: TypeAlias = dict[str, Tensor]
Limits: TypeAlias = tuple[int, int]
VLM_FILES = ("*.json", "*.txt", "*.jinja", "*.model", "*.safetensors")
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
_SLOT = "<|vision_start|><|image_pad|><|vision_end|>"
_QWEN = {"qwen2_vl": SYSTEM, "qwen2_5_vl": SYSTEM, "qwen3_vl": ""}  # what stands before the user's turn


@dataclass(frozen=True)
class Vlm:
    """A model and what prepares its inputs.

    Attributes:
        model: of transformers, ready to run.
        tokenizer: its own.
        prepare: inputs of one row, on the CPU, from a picture and a question.
        differentiable: whether `prepare` takes tensors and keeps their gradient.
    """

    model: Foreign
    tokenizer: Foreign
    prepare: Callable[[Look, str], Inputs]
    differentiable: bool

    def inputs(self, look: Look, question: str, answer: Sequence[int] = ()) -> Inputs:
        """Inputs of one row where the model is, with the tokens that its answer begins with appended."""
        made = self.prepare(look, question)
        if answer:
            count = (1, len(answer))
            made = made | {"input_ids": torch.cat([made["input_ids"], torch.tensor([answer])], dim=1)}
            for name in {"attention_mask", "mm_token_type_ids", "token_type_ids"} & made.keys():
                filler = made[name].new_full(count, int(name == "attention_mask"))
                made[name] = torch.cat([made[name], filler], dim=1)
        device, dtype = self.model.device, self.model.dtype
        return {name: part.to(device, dtype if part.is_floating_point() else None) for name, part in made.items()}

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text as it stands, without a begin or an end."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


@dataclass(frozen=True)
class QwenInputs:
    """Rows of Qwen2-VL, Qwen2.5-VL and Qwen3-VL.

    Attributes:
        tokenizer: of the checkpoint.
        image_id: of `<|image_pad|>`.
        system: what stands before the user's turn.
        limits: areas in pixels of the resizes, one after the other.
        normalise: mean and deviation.
        patch: edge of a patch in pixels.
        types: whether the model is told which tokens are a picture's (transformers 5.3 and later).
    """

    tokenizer: Foreign
    image_id: int
    system: str
    limits: tuple[Limits, ...]
    normalise: Normalise
    patch: int = 14
    types: bool = True

    def __call__(self, look: Look, question: str) -> Inputs:
        """Inputs of one row.

        Raises:
            RewardError: the question holds a token that marks a picture's place.
        """
        if "<|image_pad|>" in question or "<|video_pad|>" in question:
            raise RewardError(f"The prompt in {question!r} holds a token that marks a picture's place; leave it out.")
        pixels = self.pixels(look)  # (3, H, W)
        high, wide = (side // self.patch for side in pixels.shape[1:])
        text = f"{self.system}<|im_start|>user\n{_SLOT}{question}<|im_end|>\n<|im_start|>assistant\n"
        row = self.tokenizer(text, add_special_tokens=False).input_ids
        count = high * wide // MERGE**2
        ids = torch.tensor([[copy for one in row for copy in [one] * (count if one == self.image_id else 1)]])
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": patches(pixels, self.patch),
            "image_grid_thw": torch.tensor([[1, high, wide]]),
        }
        return inputs | ({"mm_token_type_ids": (ids == self.image_id).int()} if self.types else {})

    def pixels(self, look: Look) -> Tensor:
        """Normalised pixels (3, H, W) after the resizes."""
        for limits in self.limits:
            look = self._resized(look, limits)
        pixels = look if isinstance(look, Tensor) else to_tensor(flat(look))
        mean, std = (pixels.new_tensor(tuple(row))[:, None, None] for row in (self.normalise.mean, self.normalise.std))
        return (pixels - mean) / std

    def _resized(self, look: Look, limits: Limits) -> Look:
        factor = self.patch * MERGE
        if isinstance(look, Tensor):
            size = smart_size(look.shape[1], look.shape[2], limits, factor)
            return look if size == look.shape[1:] else resized(look[None], *size)[0]
        look = flat(look)
        high, wide = smart_size(look.height, look.width, limits, factor)
        return look.resize((wide, high), Image.Resampling.BICUBIC)


def load_vlm(
    checkpoint: str | Path,
    *,
    limits: Callable[[dict[str, Any], int], tuple[Limits, ...]],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Vlm:
    """A model that sees and writes, from a folder or the hub.

    Args:
        checkpoint: with config.json, weights, tokenizer and the settings of the image processor.
        limits: for Qwen, the areas of its resizes from preprocessor_config.json and the edge of a cell in pixels.
        device: where it runs.
        dtype: of its weights.

    Raises:
        CheckpointError: no such model, or one that transformers cannot load whole.
    """
    folder = resolve(checkpoint, VLM_FILES)
    model = load_model(folder, dtype).to(device)
    kind = model.config.model_type
    if kind not in _QWEN:
        return _with_processor(model, folder)
    tokenizer = load_tokenizer(folder)
    settings = folder / "preprocessor_config.json"
    seen = read_json(settings) if settings.is_file() else {}
    vision = model.config.vision_config
    prepare = QwenInputs(
        tokenizer,
        model.config.image_token_id,
        _QWEN[kind],
        limits(seen, vision.patch_size * vision.spatial_merge_size),
        Normalise.of(seen),
        vision.patch_size,
        takes_types(model),
    )
    return Vlm(model, tokenizer, prepare, differentiable=True)


def first_limits(settings: dict[str, Any], cell: int) -> tuple[Limits, ...]:
    """The resize of Qwen's vision utilities alone."""
    return ((4 * cell**2, 16384 * cell**2),)


def both_limits(settings: dict[str, Any], cell: int) -> tuple[Limits, ...]:
    """The resize of Qwen's vision utilities and then that of its processor."""
    return (*first_limits(settings, cell), qwen_limits(settings))


def files_of(folder: Path) -> list[Path]:
    """All that a score depends on: weights, and settings of the model, its tokenizer and its image processor."""
    return [*weight_files(folder), *sorted(folder.glob("*.json"))]


def load_model(folder: Path, dtype: torch.dtype) -> Foreign:
    """Any model of transformers that turns pictures and text into text.

    Raises:
        CheckpointError: the folder holds none, or some of its weights are missing.
    """
    from transformers import AutoModelForImageTextToText

    return load_whole(AutoModelForImageTextToText, folder, dtype)


def takes_types(model: Foreign) -> bool:
    """Whether the model wants to be told which tokens are a picture's."""
    return "mm_token_type_ids" in inspect.signature(model.forward).parameters


def _with_processor(model: Foreign, folder: Path) -> Vlm:
    from transformers import AutoProcessor

    processor = processor_of(AutoProcessor, folder)

    def prepare(look: Look, question: str) -> Inputs:
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        text = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
        assert not isinstance(look, Tensor), "only PIL images come here"
        made = processor(text=text, images=flat(look), return_tensors="pt", add_special_tokens=_begins(processor, text))
        return dict(made)

    return Vlm(model, processor.tokenizer, prepare, differentiable=False)


def _begins(processor: Foreign, text: str) -> bool:
    """Whether the tokenizer is still to write the begin token, which some chat templates write themselves."""
    begin = processor.tokenizer.bos_token
    return begin is None or not text.startswith(begin)
