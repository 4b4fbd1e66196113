"""Backbone and head together: rows in, outputs of the head out, computed only as far as they are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rewards.errors import RewardError
from rewards.llava.backbone import Backbone, Picture, Sight, Tokens, batch, last_rows
from rewards.llava.batches import Row
from rewards.llava.beginnings import common_start, read_last
from rewards.llava.decoder import read
from rewards.llava.heads import PublishedHead, pool_mean


@dataclass(frozen=True)
class Scorer:
    """What a checkpoint computes.

    Attributes:
        backbone: with the checkpoint applied.
        head: of the checkpoint.
        pad_id: fills a batch.
        official: repeat what the published code makes of a batch, even where a row depends on its companions.
        mean: read the mean of all tokens instead of the last one.
        layer: read the output of so many layers, before the final norm; None for the last one after it.
    """

    backbone: Backbone
    head: PublishedHead
    pad_id: int
    official: bool = False
    mean: bool = False
    layer: int | None = None

    def __post_init__(self) -> None:
        last = len(self.backbone.layers) - 1
        if self.layer is not None and not 0 <= self.layer <= last:
            raise RewardError(
                f"Got layer {self.layer} for a language model of {last + 1} layers; expected 0 to {last}, or None for "
                "the last one after its norm."
            )

    @property
    def shares(self) -> bool:
        """Whether rows of one picture cost little more than one of them."""
        return not (self.official or self.mean or self.layer == 0)

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row]) -> Tensor:
        """Outputs (B, d) of the head for B rows, float32 on the CPU, from one pass."""
        if self.shares and len(rows) > 1 and all(row.picture is rows[0].picture for row in rows):
            return self._of_one_picture(rows).float().cpu()
        pictures = distinct(rows)
        return self.outputs(rows, self.backbone.features(pictures)).float().cpu()

    def outputs(self, rows: Sequence[Row], features: Sequence[Tensor]) -> Tensor:
        """Outputs (B, d) of the head for B rows, with gradients, from one pass.

        Args:
            rows: one for each output.
            features: what the vision tower gave for each of `distinct(rows)`.
        """
        pictures = distinct(rows)
        seen = self.backbone.project(features, pictures)
        of_picture = {id(picture): tokens for picture, tokens in zip(pictures, seen, strict=True)}
        visual = [of_picture[id(row.picture)] for row in rows]
        tokens = self._tokens(rows)
        inputs = self.backbone.embed(tokens, visual, official=self.official)
        sight = self.backbone.sight(tokens, visual, official=self.official)
        if self.mean:
            refined = self.head.refine(read(self.backbone, inputs, layer=self.layer), sight)  # (B, L, H)
            pooled: Tensor = self.head.value_head(pool_mean(refined, tokens.mask))
            return pooled
        last = last_rows(inputs.mask)
        return self._outputs(read(self.backbone, inputs, rows=last, layer=self.layer), sight)

    def _of_one_picture(self, rows: Sequence[Row]) -> Tensor:
        """Outputs (B, d) of rows that share their picture: what they begin with runs once."""
        visual = self.backbone.project(self.backbone.features([rows[0].picture]), [rows[0].picture])
        start = common_start([row.ids for row in rows])
        embedded = (self.backbone.embed(self._tokens([row]), visual) for row in rows)
        states = read_last(self.backbone, embedded, start=start, layer=self.layer)
        return self._outputs(states, self.backbone.sight(self._tokens(rows[:1]), visual))

    def _tokens(self, rows: Sequence[Row]) -> Tokens:
        side: Literal["left", "right"] = "left" if self.official else "right"
        return batch([row.ids for row in rows], [row.picture for row in rows], self.pad_id, side=side)

    def _outputs(self, states: Tensor, sight: Sight) -> Tensor:
        """Of the head for states (B, 1, H): (B, d)."""
        outputs: Tensor = self.head(states, sight)
        return outputs[:, 0]


def distinct(rows: Sequence[Row]) -> list[Picture]:
    """The pictures of `rows`, each once, in the order of their first rows."""
    return list({id(row.picture): row.picture for row in rows}.values())
