"""OWLv2 as the detector of `rewards.geneval`: objects by the words for them, and their colours likewise.

The picture is padded with grey below or beside it to a square and resized to what the model takes (bilinear,
antialiased; the published code smooths with a Gaussian first, so that confidences differ slightly from its own). A
patch belongs to the class whose query it likes best; boxes of a class that overlap a more confident one by more than
half are the same object; the colour of a box is that of the query "a photo of a COLOUR CLASS" which it likes best.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from rewards.clip import clip_tokenizer
from rewards.geneval import Found
from rewards.geneval_prompts import COLOURS, Scene
from rewards.llava.backbone import Foreign
from rewards.llava.families import resolve
from rewards.llava.weights import weight_files
from rewards.views import to_tensor
from rewards.vision import normalised
from rewards.whole import FILES, load_whole

_SAME = 0.5  # intersection over union of two boxes of one object
_VOCABULARY = "openai/clip-vit-base-patch32"  # the same words, for a folder without tokenizer.json


@dataclass(frozen=True)
class Owl:
    """Finds the objects of a scene.

    Attributes:
        model: `Owlv2ForObjectDetection`.
        tokenizer: Of its text tower.
        threshold: The least confidence of an object.
        files: That it was read from.
    """

    model: Foreign
    tokenizer: Foreign
    threshold: float
    files: tuple[Path, ...] = ()

    def __call__(self, picture: Image.Image, scene: Scene) -> dict[str, list[Found]]:
        """Objects of each class of the scene, the most confident first."""
        names = scene.names
        hued = [name for name in names if any(one.name == name and one.colour for one in scene.include)]
        queries = [f"a photo of a {name}" for name in names]
        queries += [f"a photo of a {colour} {name}" for name in hued for colour in COLOURS]
        logits, boxes = self._seen(picture, queries)  # (P, Q), (P, 4)
        found: dict[str, list[Found]] = {}
        confidences, classes = logits[:, : len(names)].sigmoid().max(1)
        for number, name in enumerate(names):
            start = len(names) + len(COLOURS) * hued.index(name) if name in hued else None
            places = _apart(boxes, confidences, (classes == number) & (confidences > self.threshold))
            found[name] = [Found(_corners(boxes[k]), float(confidences[k]), _colour(logits[k], start)) for k in places]
        return found

    def _seen(self, picture: Image.Image, queries: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Logits (P, Q) of each patch for each query, and its box (P, 4) in pixels of the picture, on the CPU."""
        ids, mask = self._tokens(queries)  # (Q, L) each
        with torch.no_grad():
            output = self.model(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                pixel_values=self._pixels(picture).to(self.model.device, self.model.dtype),
            )
        centres, sizes = output.pred_boxes[0].float().cpu().split(2, dim=1)  # each (P, 2), relative to the square
        boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1) * max(picture.size)
        return output.logits[0].float().cpu(), boxes

    def _pixels(self, picture: Image.Image) -> Tensor:
        """Normalised pixels (1, 3, S, S)."""
        side, edge = max(picture.size), int(self.model.config.vision_config.image_size)
        square = functional.pad(
            to_tensor(picture)[None], (0, side - picture.width, 0, side - picture.height), value=0.5
        )
        return normalised(functional.interpolate(square, (edge, edge), mode="bilinear", antialias=True))

    def _tokens(self, queries: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token numbers (Q, L), filled up with zeros to the tower's length, and where they are no filler (Q, L)."""
        length = int(self.model.config.text_config.max_position_embeddings)
        rows = self.tokenizer(list(queries), max_length=length, truncation=True).input_ids
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        return ids, (torch.arange(length) < lengths[:, None]).long()


def load_owl(
    checkpoint: str | Path, threshold: float, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Owl:
    """OWLv2 from a folder or the hub.

    Args:
        checkpoint: In transformers' layout.
        threshold: The least confidence of an object.
        device: Where it runs.
        dtype: Of its weights.

    Raises:
        CheckpointError: No such model, or not all of it.
    """
    from transformers import Owlv2ForObjectDetection

    folder = resolve(checkpoint, FILES)
    model = load_whole(Owlv2ForObjectDetection, folder, dtype).to(device)
    return Owl(model, clip_tokenizer(folder, _VOCABULARY), threshold, tuple(weight_files(folder)))


def overlap(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union (M,) of a box (4,) with others (M, 4)."""
    corner = torch.minimum(box[2:], others[:, 2:])
    shared = (corner - torch.maximum(box[:2], others[:, :2])).clamp(min=0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return shared / (areas - shared).clamp(min=1e-9)


def _apart(boxes: Tensor, confidences: Tensor, among: Tensor) -> list[int]:
    """Places of the boxes that are objects of their own, the most confident first."""
    places = among.nonzero().flatten()
    order = places[confidences[places].argsort(descending=True, stable=True)].tolist()
    kept: list[int] = []
    for place in order:
        if not kept or bool((overlap(boxes[place], boxes[kept]) <= _SAME).all()):
            kept.append(place)
    return kept


def _corners(box: Tensor) -> tuple[float, float, float, float]:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom


def _colour(logits: Tensor, start: int | None) -> str:
    """The colour whose query, of those from `start` on, is liked best."""
    return "" if start is None else COLOURS[int(logits[start : start + len(COLOURS)].argmax())]
