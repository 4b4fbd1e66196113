"""Everything about a training that its weights depend on, beside the data and the base model."""

import math
from dataclasses import dataclass

from rewards.errors import RewardError
from rewards.llava.layouts import NUM_CROPS
from rewards.training.losses import Loss


@dataclass(frozen=True)
class Settings:
    """The defaults are those of the published trainer, but for what it trains (see `lora_only`).

    Attributes:
        loss: of pairs: "bt" (Bradley-Terry), "gpm" (general preference) or "cls" (classification of both sides).
        dim: outputs of the head for "gpm", an even number.
        tau: temperature of "bt" and "gpm".
        margin: by how much a chosen side should be ahead, where its record says nothing.
        label_weight: what a labelled picture counts beside a pair.
        skipca: whether the head looks back at the visual tokens.
        rank, alpha, dropout: of the low-rank matrices.
        full: train the language model's own weights instead of low-rank matrices beside them.
        lora_only: train nothing but these, as the published code does; head, SkipCA and projector keep initial values.
        projector: whether the projector is trained.
        tower: whether the vision tower is trained too, in the same way; otherwise it is frozen.
        steps: of the optimizer; 0 goes `epochs` times through the data.
        epochs: times through the data.
        batch: records per step, over all processes.
        micro: records in one forward pass of one process, at most.
        rate: highest learning rate.
        warmup: share of the steps in which it rises; then it falls to 0 along a cosine.
        clip: largest norm of the gradient.
        decay: weight decay of AdamW.
        bfloat16: run the frozen weights in bfloat16; what is trained stays in float32.
        checkpointing: compute the decoder's inner values again in the backward pass instead of keeping them.
        num_crops: for Phi, at most so many crops of a picture.
        seed: of initial values, order of the data and dropout.
    """

    loss: Loss = "bt"
    dim: int = 2
    tau: float = 0.1
    margin: float = 0.0
    label_weight: float = 1.0
    skipca: bool = True
    rank: int = 128
    alpha: float = 256.0
    dropout: float = 0.05
    full: bool = False
    lora_only: bool = False
    projector: bool = True
    tower: bool = False
    steps: int = 0
    epochs: float = 1.0
    batch: int = 16
    micro: int = 4
    rate: float = 2e-4
    warmup: float = 0.03
    clip: float = 1.0
    decay: float = 0.0
    bfloat16: bool = False
    checkpointing: bool = False
    num_crops: int = NUM_CROPS
    seed: int = 42

    def __post_init__(self) -> None:
        if self.loss not in ("bt", "gpm", "cls"):
            raise RewardError(f"Got loss {self.loss!r}; expected 'bt', 'gpm' or 'cls'.")
        if self.loss == "gpm" and (self.dim < 2 or self.dim % 2):
            raise RewardError(f"Got {self.dim} outputs for a general preference; expected an even number.")
        if self.full and self.lora_only:
            raise RewardError("Got full and lora_only, which exclude each other; take one of them.")
        for name in ("tau", "rank", "alpha", "batch", "micro", "rate", "clip", "epochs"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise RewardError(f"Got {name} {value!r}; expected a number above 0.")
        for name, value in (("dropout", self.dropout), ("warmup", self.warmup)):
            if not 0 <= value < 1:
                raise RewardError(f"Got {name} {value!r}; expected a number from 0 to below 1.")

    @property
    def outputs(self) -> int:
        """Of the head."""
        return self.dim if self.loss == "gpm" else 1

    def steps_for(self, count: int) -> int:
        """How many steps a training on `count` records takes."""
        return self.steps or max(1, math.ceil(count * self.epochs / self.batch))

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step, from 0: as published, the first of a warm-up has none."""
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return self.rate * step / rising
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
