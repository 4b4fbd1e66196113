"""What every LLaVA-Reward backbone offers, whatever the family: see a picture, embed a batch, name its layers.

A backbone is used in four steps, so that what several prompts or several perspectives share is computed once:

    features = backbone.features(pictures)           the frozen vision tower, one tensor per picture
    visual   = backbone.project(features, pictures)  visual tokens E_v as they leave the projector, (V_i, H) each
    inputs   = backbone.embed(tokens, visual)        one sequence per row, with its rotary angles
    hidden   = read(backbone, inputs, rows=…)        the decoder, computed only as far as it is read (`decoder.py`)

`backbone.sight(tokens, visual)` gives the head's SkipCA its keys. No logits, no cache and no stored states anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from rewards.llava.soft import AnyImage

Foreign: TypeAlias = Any  # an object of transformers, which has no types


@dataclass(frozen=True)
class Picture:
    """One picture as the vision tower takes it.

    Attributes:
        pixels: (C, 3, S, S) normalised crops, the whole picture first; for Qwen (P, 3 · 2 · 14 · 14) patches.
        size: (height, width) that the tokens' layout depends on. Phi: of the padded picture in pixels; LLaVA: of the
            original in pixels; Qwen: of the grid in patches.
    """

    pixels: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class Tokens:
    """A batch of token ids, padded on one side.

    Attributes:
        ids: (B, L) int64; image slots as the family writes them.
        mask: (B, L) bool, False on padding.
        pictures: (B,) the picture of each row, whose size Qwen's positions need.
    """

    ids: Tensor
    mask: Tensor
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Embedded:
    """What the first decoder layer is given: `x` (B, L, H), `cos` and `sin` (B, 1, L, D), `mask` (B, L) bool."""

    x: Tensor
    cos: Tensor
    sin: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Sight:
    """The keys of SkipCA: `tokens` (B, V, H) padded with zeros, and `mask` (B, V), True where a token counts.

    Where all rows look at one picture, both hold it once: (1, V, H) and (1, V).
    """

    tokens: Tensor
    mask: Tensor


class Backbone(Protocol):
    """A multimodal language model up to its last hidden state.

    Attributes:
        width: H, of the language model.
        eps: of the RMS norm that a SkipCA head on this backbone uses.
    """

    width: int
    eps: float

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The decoder layers, first to last."""
        ...

    @property
    def norm(self) -> nn.Module:
        """The norm after the last of them."""
        ...

    def features(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """Output of the vision tower before the projector, one tensor per picture."""
        ...

    def project(self, features: Sequence[Tensor], pictures: Sequence[Picture]) -> list[Tensor]:
        """Visual tokens E_v, (V_i, H) per picture, in the order in which they stand in the sequence."""
        ...

    def embed(self, tokens: Tokens, visual: Sequence[Tensor], *, official: bool = False) -> Embedded:
        """Input embeddings with the visual tokens in their slots, and the rotary angles.

        `official` repeats what the published code makes of a batch, even where a row then depends on the others.
        """
        ...

    def sight(self, tokens: Tokens, visual: Sequence[Tensor], *, official: bool = False) -> Sight:
        """What SkipCA looks at: the row's visual tokens, or with `official` what the published code looks at."""
        ...


class Inputs(Protocol):
    """Turns one picture and one prompt into what a backbone takes."""

    @property
    def pad_id(self) -> int:
        """The id that fills a batch."""
        ...

    def picture(self, image: AnyImage) -> Picture:
        """The picture, preprocessed in float32 where it lies."""
        ...

    def text(self, prompt: str) -> str:
        """The whole text around the prompt, with one image slot."""
        ...

    def ids(self, prompt: str, picture: Picture) -> list[int]:
        """Token ids of one row, with one id for each visual token of the picture."""
        ...


def batch(
    rows: Sequence[Sequence[int]],
    pictures: Sequence[Picture],
    pad_id: int,
    *,
    side: Literal["left", "right"] = "right",
) -> Tokens:
    """Rows of ids as one batch, padded with `pad_id`.

    Padding on the right needs no attention mask in a causal model, and lets rows share their beginning; the published
    code pads on the left, with the same numbers.
    """
    length = max(len(row) for row in rows)
    gaps = [[pad_id] * (length - len(row)) for row in rows]
    left = side == "left"
    ids = torch.tensor([[*gap, *row] if left else [*row, *gap] for row, gap in zip(rows, gaps, strict=True)])  # (B, L)
    counts, positions = torch.tensor([len(row) for row in rows])[:, None], torch.arange(length)
    return Tokens(ids, positions >= length - counts if left else positions < counts, tuple(pictures))


def last_rows(mask: Tensor) -> Tensor:
    """Index (B, 1) of the last position of each row that is not padding."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, positions, 0).amax(dim=1, keepdim=True)


def padded(visual: Sequence[Tensor]) -> Sight:
    """Visual tokens of different numbers as one tensor, with the mask of the true ones."""
    if all(row is visual[0] for row in visual):
        return Sight(visual[0][None], torch.ones(1, len(visual[0]), dtype=torch.bool, device=visual[0].device))
    counts = torch.tensor([len(row) for row in visual], device=visual[0].device)
    alike = len({len(row) for row in visual}) == 1
    tokens = torch.stack(list(visual)) if alike else nn.utils.rnn.pad_sequence(list(visual), batch_first=True)
    return Sight(tokens, torch.arange(tokens.shape[1], device=tokens.device) < counts[:, None])
