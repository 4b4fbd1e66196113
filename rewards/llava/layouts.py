"""How each family writes a prompt and its picture as token ids, byte for byte as LLaVA-Reward was trained.

The published code gets these strings by cutting its chat templates at fixed places; here they are written out, so that
a template that changes cannot change a score.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from rewards.errors import ImageError, RewardError
from rewards.llava import anyres, hd_transform, phi3v, qwen, qwen_resize
from rewards.llava.backbone import Foreign, Picture
from rewards.llava.normalise import Normalise
from rewards.llava.soft import AnyImage

_PHI_SLOT = re.compile(r"<\|image_\d+\|>")
NUM_CROPS = 16


def phi_text(prompt: str, eos: str = "<|endoftext|>") -> str:
    """The text of one row for Phi-3.5-vision; `eos` is its tokenizer's."""
    return f"<|user|>\n<|image_1|>\n{prompt}{eos}"


def qwen_text(prompt: str) -> str:
    """The text of one row for Qwen2.5-VL."""
    return f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{prompt}<|im_end|>"


def llava_text(prompt: str, eos: str = "</s>") -> str:
    """The text of one row for LLaVA with a Vicuna; `eos` is its tokenizer's."""
    return f"USER: <image>\n{prompt}{eos}"


@dataclass(frozen=True)
class PhiInputs:
    """Phi-3.5-vision's (`rewards.llava.backbone.Inputs`).

    The text before and behind the picture is tokenised apart, so that the begin token stands before both; the picture's
    slots are −1.
    """

    tokenizer: Foreign
    normalise: Normalise = field(default_factory=Normalise)
    num_crops: int = NUM_CROPS

    def __post_init__(self) -> None:
        if self.num_crops < 1:
            raise RewardError(f"Got num_crops {self.num_crops}; expected at least 1: the published reward uses 16.")

    @property
    def pad_id(self) -> int:
        """Fills a batch."""
        return int(self.tokenizer.pad_token_id)

    def picture(self, image: AnyImage) -> Picture:
        """Whole and crops of 336 pixels."""
        return hd_transform.hd_transform(image, num_crops=self.num_crops, normalise=self.normalise)

    def text(self, prompt: str) -> str:
        """The whole text."""
        return phi_text(prompt, self.tokenizer.eos_token)

    def ids(self, prompt: str, picture: Picture) -> list[int]:
        """Token ids of one row."""
        before, after = _PHI_SLOT.split(self.text(_free_of(prompt, _PHI_SLOT)))
        slots = [-1] * phi3v.visual_count(picture.size)
        return [*_encode(self.tokenizer, before), *slots, *_encode(self.tokenizer, after)]


@dataclass(frozen=True)
class QwenInputs:
    """Qwen2.5-VL's (`rewards.llava.backbone.Inputs`)."""

    tokenizer: Foreign
    image_id: int
    normalise: Normalise = field(default_factory=Normalise)
    limits: tuple[int, int] = qwen_resize.LIMITS

    @property
    def pad_id(self) -> int:
        """Fills a batch."""
        return int(self.tokenizer.pad_token_id)

    def picture(self, image: AnyImage) -> Picture:
        """Patches, after both resizes."""
        return qwen_resize.qwen_picture(image, limits=self.limits, normalise=self.normalise)

    def text(self, prompt: str) -> str:
        """The whole text."""
        return qwen_text(prompt)

    def ids(self, prompt: str, picture: Picture) -> list[int]:
        """Token ids of one row."""
        text = self.text(_free_of(prompt, re.compile(r"<\|(image|video)_pad\|>")))
        return _expand(_encode(self.tokenizer, text), self.image_id, qwen.visual_count(picture.size))


@dataclass(frozen=True)
class LlavaInputs:
    """LLaVA's, with tiles or with one crop (`rewards.llava.backbone.Inputs`).

    Attributes:
        tokenizer: of the checkpoint.
        image_id: of `<image>`.
        see: turns an image into a picture.
        count: number of visual tokens of a picture.
        template: the text of one row with "<image>" and "{prompt}", where it is not `llava_text`.
    """

    tokenizer: Foreign
    image_id: int
    see: Callable[[AnyImage], Picture]
    count: Callable[[Picture], int]
    template: str = ""

    @property
    def pad_id(self) -> int:
        """Fills a batch."""
        tokenizer = self.tokenizer
        return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)

    def picture(self, image: AnyImage) -> Picture:
        """Whole and tiles, or one crop."""
        return self.see(image)

    def text(self, prompt: str) -> str:
        """The whole text."""
        return (self.template or llava_text("{prompt}", self.tokenizer.eos_token)).replace("{prompt}", prompt)

    def ids(self, prompt: str, picture: Picture) -> list[int]:
        """Token ids of one row."""
        text = self.text(_free_of(prompt, re.compile("<image>")))
        return _expand(_encode(self.tokenizer, text), self.image_id, self.count(picture))


def llava_next_inputs(tokenizer: Foreign, config: dict[str, Any], settings: dict[str, Any]) -> LlavaInputs:
    """Inputs of LLaVA-v1.6 from its config.json and preprocessor_config.json."""
    vision = config["vision_config"]
    tile = _edge(settings.get("crop_size"), _edge(settings.get("size"), vision["image_size"]))
    resolutions = settings.get("image_grid_pinpoints", config["image_grid_pinpoints"])
    side, normalise = vision["image_size"] // vision["patch_size"], Normalise.of(settings)
    class_token = config.get("vision_feature_select_strategy", "default") == "full"
    if class_token:
        raise RewardError(
            "Got vision_feature_select_strategy 'full'; expected 'default', which LLaVA-v1.6 was released with."
        )

    def see(image: AnyImage) -> Picture:
        return anyres.anyres(image, tile=tile, resolutions=resolutions, normalise=normalise)

    def count(picture: Picture) -> int:
        return anyres.visual_count(picture.size, side=side, tile=tile, resolutions=resolutions)

    return LlavaInputs(tokenizer, _image_id(config), see, count)


def llava_inputs(tokenizer: Foreign, config: dict[str, Any], settings: dict[str, Any]) -> LlavaInputs:
    """Inputs of plain LLaVA: the shorter side resized to the tower's size, the middle cut out.

    `settings` are those of preprocessor_config.json, with a "template" where the model has one of its own.
    """
    vision = config["vision_config"]
    size, normalise = vision["image_size"], Normalise.of(settings)
    tokens = (size // vision["patch_size"]) ** 2 + (config.get("vision_feature_select_strategy") == "full")
    return LlavaInputs(
        tokenizer,
        _image_id(config),
        see=lambda image: middle(image, size, normalise),
        count=lambda _: tokens,
        template=settings.get("template", ""),
    )


def middle(image: AnyImage, size: int, normalise: Normalise) -> Picture:
    """The picture with its shorter side at `size` pixels (bicubic), and the middle of the longer one."""
    image = image.convert("RGB")
    original = image.height, image.width
    if not min(original):
        raise ImageError(f"Got a picture of {image.width} x {image.height} pixels; expected at least one pixel.")
    high, wide = (int(size * side / min(original)) for side in original)
    image = image.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = (wide - size) // 2, (high - size) // 2
    return Picture(normalise(image.crop((left, top, left + size, top + size)))[None], original)


def qwen_limits(settings: dict[str, Any]) -> tuple[int, int]:
    """Smallest and largest area in pixels that a preprocessor_config.json asks for, in its old or its new form."""
    size = settings.get("size") or {}
    smallest = (
        settings.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels") or qwen_resize.LIMITS[0]
    )
    largest = settings.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels") or qwen_resize.LIMITS[1]
    return int(smallest), int(largest)


def _encode(tokenizer: Foreign, text: str) -> list[int]:
    return list(tokenizer(text).input_ids)


def _expand(ids: Sequence[int], slot: int, count: int) -> list[int]:
    return [copy for token in ids for copy in [token] * (count if token == slot else 1)]


def _free_of(prompt: str, slot: re.Pattern[str]) -> str:
    found = slot.search(prompt)
    if found:
        raise RewardError(f"The prompt {prompt!r} holds {found[0]!r}, which marks the picture's place; leave it out.")
    return prompt


def _image_id(config: dict[str, Any]) -> int:
    return int(config["image_token_index"] if "image_token_index" in config else config["image_token_id"])


def _edge(size: Foreign, default: int) -> int:
    if isinstance(size, dict):
        return int(size.get("height") or size.get("shortest_edge") or default)
    return int(size or default)
