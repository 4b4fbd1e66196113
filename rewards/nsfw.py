"""The probability that a picture is unsafe, for a constraint: `hpsv2 subject to nsfw < 0.1`.

    score = Σ of the softmax over the classes that are unsafe         (0 safe to 1 unsafe)

where a model has independent classes, 1 − Π (1 − σ) over the unsafe ones. A high score is a bad picture, so as a term
of a sum it needs a minus; but a sum lets beauty pay for harm, and a constraint does not. The prompt is not looked at.
A classifier errs both ways: it is no promise, and its threshold is yours to choose.

Any image classifier of transformers serves; the default, Falconsai/nsfw_image_detection (ViT-B/16, Apache-2.0), has the
classes "normal" and "nsfw" and 86 M parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from rewards.devices import device_of, dtype_of
from rewards.errors import RewardError
from rewards.llava.backbone import Foreign
from rewards.llava.families import resolve
from rewards.llava.weights import weight_files
from rewards.single import Look, SingleReward
from rewards.whole import FILES, load_whole, processor_of

CHECKPOINT = "Falconsai/nsfw_image_detection"
UNSAFE = ("explicit", "hentai", "nsfw", "porn", "pornography", "sexual", "unsafe")


@dataclass(frozen=True)
class Unsafe:
    """The probability of the unsafe classes, for `SingleReward`.

    Attributes:
        model: An image classifier of transformers.
        prepare: Pixel values (1, 3, S, S) of an RGB picture.
        classes: Numbers of the unsafe classes.
        independent: Whether each class has a probability of its own.
    """

    model: Foreign
    prepare: Callable[[Image.Image], Tensor]
    classes: tuple[int, ...]
    independent: bool

    def __call__(self, look: Look, prompt: str) -> Tensor:
        """The probability, a tensor ()."""
        assert isinstance(look, Image.Image), "only PIL images come here"
        pixels = self.prepare(look.convert("RGB")).to(self.model.device, self.model.dtype)
        logits: Tensor = self.model(pixel_values=pixels).logits[0].float()  # (classes,)
        if self.independent:
            return 1 - (1 - logits.sigmoid()[list(self.classes)]).prod()
        return logits.softmax(0)[list(self.classes)].sum()


def load_nsfw(
    checkpoint: str | Path = CHECKPOINT,
    *,
    labels: str = "",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
) -> SingleReward:
    """The probability of unsafe classes by an image classifier.

    Args:
        checkpoint: Folder or hub name, with its image processor's settings.
        labels: Names of the unsafe classes with a vertical bar between them; "" finds the usual names.
        device: A GPU if None and there is one.
        dtype: "float32", "bfloat16" or "float16".

    Raises:
        RewardError: No such checkpoint, class, device or dtype.
    """
    from transformers import AutoModelForImageClassification

    folder, number = resolve(checkpoint, FILES), dtype_of(dtype)
    model = load_whole(AutoModelForImageClassification, folder, number).to(device_of(device))
    classes = unsafe_classes(model.config.id2label, labels)
    independent = model.config.problem_type == "multi_label_classification"
    files = (*weight_files(folder), folder / "preprocessor_config.json")
    score = Unsafe(model, _processor(folder), classes, independent)
    return SingleReward("nsfw", score, differentiable=False, files=files, settings=f"{classes} {independent} {number}")


def unsafe_classes(names: Mapping[int, str], labels: str = "") -> tuple[int, ...]:
    """Numbers of the unsafe classes among `names`.

    Raises:
        RewardError: A label that is no class, or none that is known to be unsafe.
    """
    wanted = [label.strip().lower() for label in labels.split("|") if label.strip()]
    known = {name.lower(): number for number, name in names.items()}
    missing = [label for label in wanted if label not in known]
    if missing:
        raise RewardError(f"The classifier has no class {missing[0]!r}; it has {', '.join(names.values())}.")
    found = [known[label] for label in wanted or UNSAFE if label in known]
    if not found:
        raise RewardError(
            f"None of the classes {', '.join(names.values())} is known to be unsafe; say which are, for example "
            "nsfw(labels=drawing|photo)."
        )
    return tuple(sorted(found))


def _processor(folder: Path) -> Callable[[Image.Image], Tensor]:
    from transformers import AutoImageProcessor

    processor = processor_of(AutoImageProcessor, folder)

    def prepare(picture: Image.Image) -> Tensor:
        pixels: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"]
        return pixels

    return prepare
