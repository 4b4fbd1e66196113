"""Backbone and head together: rows in, outputs of the head out, computed only as far as they are read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewards.errors import RewardError
from rewards.llava.backbone import Backbone, Embedded, batch, last_rows
from rewards.llava.batches import Row
from rewards.llava.decoder import common_start, read, read_behind
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

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row]) -> Tensor:
        """Outputs (B, d) of the head for B rows, float32 on the CPU, from one pass."""
        pictures = list({id(row.picture): row.picture for row in rows}.values())
        seen = self.backbone.project(self.backbone.features(pictures), pictures)
        of_picture = {id(picture): tokens for picture, tokens in zip(pictures, seen, strict=True)}
        visual = [of_picture[id(row.picture)] for row in rows]
        side = "left" if self.official else "right"
        tokens = batch([row.ids for row in rows], [row.picture for row in rows], self.pad_id, side=side)  # type: ignore[arg-type]
        inputs = self.backbone.embed(tokens, visual, official=self.official)
        sight = self.backbone.sight(tokens, visual, official=self.official)
        if self.mean:
            refined = self.head.refine(read(self.backbone, inputs, layer=self.layer), sight)  # (B, L, H)
            pooled: Tensor = self.head.value_head(pool_mean(refined, tokens.mask))
            return pooled.float().cpu()
        states = self._last_states(inputs, last_rows(tokens.mask), shared=len(pictures) == 1)
        outputs: Tensor = self.head(states, sight)
        return outputs[:, 0].float().cpu()

    def _last_states(self, inputs: Embedded, rows: Tensor, *, shared: bool) -> Tensor:
        """States (B, 1, H) at `rows`; what several prompts on one picture have in common runs once."""
        rows = rows.to(inputs.x.device)
        if shared and len(rows) > 1 and not self.official and self.layer != 0:
            start = min(common_start(inputs), int(rows.min()))
            if start > 0:
                return read_behind(self.backbone, inputs, start=start, rows=rows, layer=self.layer)
        return read(self.backbone, inputs, rows=rows, layer=self.layer)
