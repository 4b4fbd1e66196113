"""LLaVA-Reward as a `Reward`: the embedded one, or with `checkpoint=` any other, published ones too."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.base import Images, ImagesLike, Scores, as_images, check_prompts, check_scores
from rewards.devices import device_of, dtype_of
from rewards.errors import CheckpointError, RewardError
from rewards.llava.checkpoint import SETTINGS_FILE, Checkpoint, load_checkpoint, revision
from rewards.llava.hub import REPOSITORY, find_checkpoint, find_embedded, is_embedded, is_on_hub
from rewards.llava.images import preprocess
from rewards.llava.layouts import NUM_CROPS
from rewards.llava.loading import Pooling, SkipCAMode, load_published
from rewards.llava.perspectives import load_perspectives
from rewards.llava.prompts import encode
from rewards.llava.published import PublishedReward
from rewards.llava.weights import DeviceMap


class LlavaReward:
    """Scores of a LLaVA with a reward head; absolute, in units in which tau = 0.1 is one nat of preference.

    A score depends on its picture and its prompt alone. Images that require a gradient get one.

    Args:
        checkpoint: the parts, see `load_checkpoint`.
        batch_size: pictures in one forward pass.
        device: where the model runs; scores come back to the images' device.
        dtype: of the language model and vision tower; the head's norm is computed in float32.
        revision: content hash of the weights, with their dtype if it is not float32, for records.
    """

    name = "llava-reward"
    absolute = True
    differentiable = True
    perspectives = staticmethod(load_perspectives)

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        batch_size: int = 16,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        revision: str = "",
    ) -> None:
        if batch_size < 1:
            raise RewardError(f"Got batch_size {batch_size}; expected at least 1.")
        self.revision = revision
        self._model = checkpoint.model.to(device, dtype).eval().requires_grad_(False)
        self._head = checkpoint.head.to(device, dtype).eval().requires_grad_(False)
        self._tokenizer, self._settings = checkpoint.tokenizer, checkpoint.settings
        self._batch_size = batch_size
        self._image_tokens = int(checkpoint.model.config.image_seq_length)

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores of N pictures against their prompts, (N,) float32.

        Raises:
            RewardError: images or prompts that cannot be scored, or a score that is not finite.
        """
        pixels = as_images(images)
        check_prompts(pixels, prompts)
        with torch.set_grad_enabled(pixels.requires_grad and torch.is_grad_enabled()):
            parts = [
                self._score(pixels[start : start + self._batch_size], prompts[start : start + self._batch_size])
                for start in range(0, len(pixels), self._batch_size)
            ]
        return check_scores(torch.cat(parts), self.name, len(pixels))

    def _score(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """One forward pass; (n,) float32 on the images' device."""
        device, dtype = self._model.device, self._model.dtype
        text = encode(prompts, self._tokenizer, self._settings.template, self._image_tokens)
        output = self._model.model(
            input_ids=text.ids.to(device),
            attention_mask=text.mask.to(device),
            pixel_values=preprocess(images.to(device, torch.float32), self._settings.image).to(dtype),
            use_cache=False,
        )
        states = output.last_hidden_state  # (n, L, H)
        last = states[torch.arange(len(states), device=device), text.last.to(device)]  # (n, H)
        visual = torch.cat(tuple(_features(output))).reshape(len(states), -1, states.shape[-1])  # (n, V, H)
        scores: Tensor = self._head(last, visual)
        return scores.to(images.device, torch.float32)


def _features(output: Any) -> Iterable[Tensor]:  # noqa: ANN401  transformers has no types
    """Projected visual tokens, picture by picture; transformers 5.24 put them elsewhere."""
    features: Iterable[Tensor] = (
        output.image_outputs.pooler_output if "image_outputs" in output else output.image_hidden_states
    )
    return features


def load_llava_reward(  # noqa: PLR0913  one door to the embedded reward and to all published ones
    checkpoint: str | Path | None = None,
    *,
    base: str | Path | None = None,
    skipca: SkipCAMode | None = None,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device | None = None,
    device_map: DeviceMap | None = None,
    num_crops: int = NUM_CROPS,
    pooling: Pooling = "eos",
    layer: int | None = None,
    batch_size: int | None = None,
    compile: bool = False,
    allow_empty: bool = False,
    variant: str = "",
) -> LlavaReward | PublishedReward:
    """The LLaVA-Reward in a folder, or "llava-reward:alignment" from those that were published.

    Args:
        checkpoint: folder that `save_checkpoint` wrote, or folder or hub name of one in the published layout; the
            embedded model for 64 x 64 shapes if None.
        device: for example "cuda"; the embedded model stays on the CPU unless told otherwise, others take a GPU if any.
        dtype: "float32", "bfloat16" or "float16".
        batch_size: pictures in one forward pass; by default 16, or what `published.PublishedReward` says.
        base: this and the rest are for the published layout alone, see `loading.load_published`.
        skipca: "masked" or "official".
        device_map: which module goes where.
        num_crops: for Phi, at most so many crops of a picture.
        pooling: "eos" or "mean".
        layer: which layer's output is read.
        compile: run the decoder layers through `torch.compile`.
        allow_empty: take prompts without a word; otherwise they are an error.
        variant: what stands behind the colon: words that name one checkpoint of those below `checkpoint`, by default
            `hub.REPOSITORY`, see `hub.find_checkpoint`; or "embedded-fidelity", which comes with the package.

    Raises:
        RewardError: no such folder, device or dtype, or an option that the checkpoint's layout does not have.
    """
    number = dtype_of(dtype)
    embedded = checkpoint is None and (not variant or is_embedded(variant))
    place = device_of("cpu" if embedded and device is None else device)
    folder = find_llava_reward(checkpoint, variant)
    if _is_published(folder):
        return load_published(
            folder, base=base, skipca=skipca, dtype=number, device=place, device_map=device_map,
            num_crops=num_crops, pooling=pooling, layer=layer, batch_size=batch_size, compile=compile,
            allow_empty=allow_empty,
        )  # fmt: skip
    given = {
        "base": base is not None, "skipca": skipca is not None, "device_map": device_map is not None,
        "layer": layer is not None, "num_crops": num_crops != NUM_CROPS, "pooling": pooling != "eos",
        "compile": compile, "allow_empty": allow_empty,
    }  # fmt: skip
    for option in filter(given.get, given):
        raise RewardError(f"Got {option}, which only checkpoints in the published layout have; leave it out.")
    parts = load_checkpoint(folder)
    size = 16 if batch_size is None else batch_size
    known = revision(folder) if number == torch.float32 else f"{revision(folder)} {number}"
    return LlavaReward(parts, batch_size=size, device=place, dtype=number, revision=known)


def find_llava_reward(checkpoint: str | Path | None = None, variant: str = "") -> Path:
    """The folder that `load_llava_reward` reads for these two, downloaded if need be; nothing of it is read.

    Raises:
        CheckpointError: there is none, or several may be meant.
    """
    if checkpoint is None and (not variant or is_embedded(variant)):
        return find_embedded(variant)
    if variant or is_on_hub(checkpoint):
        checkpoint = find_checkpoint(variant, checkpoint or REPOSITORY)
    folder = Path(checkpoint or "")
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no folder {str(checkpoint)!r}; expected a checkpoint's folder, or a name on the hub such as "
            "'owner/name'; leave `checkpoint` out for the embedded LLaVA-Reward."
        )
    return folder


def _is_published(folder: Path) -> bool:
    """Whether to look for the published layout there: in any model folder without our settings."""
    files = ("reward_config.yaml", "lora", "config.json")  # a full fine-tune has only the last
    return not (folder / SETTINGS_FILE).is_file() and any((folder / name).exists() for name in files)
