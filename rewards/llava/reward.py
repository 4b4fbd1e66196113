"""LLaVA-Reward as a `Reward`: `load_reward("llava-reward")` is the embedded one, `checkpoint=` any other folder."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewards.base import Images, ImagesLike, Scores, as_images, check_prompts, check_scores
from rewards.errors import RewardError
from rewards.llava.checkpoint import Checkpoint, load_checkpoint, revision
from rewards.llava.images import preprocess
from rewards.llava.prompts import encode

EMBEDDED = Path(__file__).parent / "embedded"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LlavaReward:
    """Scores of a LLaVA with a reward head; absolute, in units in which tau = 0.1 is one nat of preference.

    A score depends on its picture and its prompt alone. Images that require a gradient get one.

    Args:
        checkpoint: the parts, see `load_checkpoint`.
        batch_size: pictures in one forward pass.
        device: where the model runs; scores come back to the images' device.
        dtype: of the language model and vision tower; the head's norm is computed in float32.
        revision: content hash of the weights, for records.
    """

    name = "llava-reward"
    absolute = True

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
        visual = output.image_hidden_states.reshape(len(states), -1, states.shape[-1])  # (n, V, H)
        scores: Tensor = self._head(last, visual)
        return scores.to(images.device, torch.float32)


def load_llava_reward(
    checkpoint: str | Path | None = None, *, device: str | None = None, dtype: str = "float32", batch_size: int = 16
) -> LlavaReward:
    """The LLaVA-Reward in a folder.

    Args:
        checkpoint: folder that `save_checkpoint` wrote; the embedded model for 64 x 64 shapes if None.
        device: for example "cuda"; the embedded model stays on the CPU unless told otherwise, others take a GPU if any.
        dtype: "float32", "bfloat16" or "float16".
        batch_size: pictures in one forward pass.

    Raises:
        RewardError: no such folder, device or dtype.
    """
    if dtype not in _DTYPES:
        raise RewardError(f"Got dtype {dtype!r}; expected one of {', '.join(_DTYPES)}.")
    folder = EMBEDDED if checkpoint is None else Path(checkpoint)
    place = device or ("cuda" if checkpoint is not None and torch.cuda.is_available() else "cpu")
    parts = load_checkpoint(folder)
    try:
        return LlavaReward(parts, batch_size=batch_size, device=place, dtype=_DTYPES[dtype], revision=revision(folder))
    except (RuntimeError, AssertionError) as error:
        raise RewardError(f"Device {place!r} cannot be used: {error}; expected 'cpu', 'cuda' or 'mps'.") from error
