"""One backbone in memory for several checkpoints: low-rank side branches and projectors, one set active at a time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

from torch import Tensor, nn

from rewards.llava.backbone import Backbone, Embedded, Picture, Sight, Tokens
from rewards.llava.official import Official, check_fit

_TOWERS = (".img_processor.", "vision_tower.", "visual.")


class Shared:
    """A base model's backbone, changed in place, and what several checkpoints put on it.

    Args:
        backbone: of the base model, as loaded.
        checkpoints: by name.

    Raises:
        CheckpointError: one does not fit the backbone.
    """

    def __init__(self, backbone: Backbone, checkpoints: Mapping[str, Official]) -> None:
        for checkpoint in checkpoints.values():
            check_fit(checkpoint, backbone)
        self.backbone = backbone
        self.active = ""
        self._keep = False  # whether to keep what the vision tower gives
        self._weights = dict(cast(nn.Module, backbone).named_parameters())
        replaced = {part for checkpoint in checkpoints.values() for part in checkpoint.projector}
        self._base = {part: self._weights[part].data for part in replaced}
        self._projectors = {
            name: {part: tensor.to(self._base[part]) for part, tensor in checkpoint.projector.items()}
            for name, checkpoint in checkpoints.items()
        }
        self._seen: dict[tuple[str, int], tuple[Picture, Tensor]] = {}
        self.views = {name: self._add(name, checkpoint) for name, checkpoint in checkpoints.items()}

    def activate(self, name: str) -> None:
        """Make the backbone give the numbers of that checkpoint."""
        if name != self.active:
            for part, tensor in {**self._base, **self._projectors[name]}.items():
                self._weights[part].data = tensor
            self.active = name

    def features(self, tower: str, pictures: Sequence[Picture]) -> list[Tensor]:
        """What the vision tower gives; inside `keeping`, what it gave for a picture before."""
        if not self._keep:
            return self.backbone.features(pictures)
        new = [picture for picture in pictures if (tower, id(picture)) not in self._seen]
        if new:
            for picture, given in zip(new, self.backbone.features(new), strict=True):
                self._seen[tower, id(picture)] = picture, given  # the picture is kept so that its id stays its own
        return [self._seen[tower, id(picture)][1] for picture in pictures]

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """What the vision tower gives is kept inside, and dropped at the end."""
        self._keep = True
        try:
            yield
        finally:
            self._keep = False
            self._seen.clear()

    def _add(self, name: str, checkpoint: Official) -> "View":
        for part, (down, up) in checkpoint.lora.items():
            layer = self._adapted(part)
            layer.branches[name] = down.to(layer.weight), checkpoint.scale * up.to(layer.weight)
        sees = any(tower in f".{part}" and "merger" not in part for tower in _TOWERS for part in checkpoint.lora)
        return View(self, name, tower=name if sees else "")

    def _adapted(self, part: str) -> "Adapted":
        owner, _, leaf = part.rpartition(".")
        above = cast(nn.Module, self.backbone).get_submodule(owner)
        layer = above.get_submodule(leaf)
        if not isinstance(layer, Adapted):
            layer = Adapted(cast(nn.Linear, layer), self)
            setattr(above, leaf, layer)
        return layer


class Adapted(nn.Module):
    """A linear layer with a low-rank branch for each checkpoint: x Wᵀ + scale · (x Aᵀ) Bᵀ of the active one."""

    def __init__(self, linear: nn.Linear, shared: Shared) -> None:
        super().__init__()
        self.linear = linear
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.branches: dict[str, tuple[Tensor, Tensor]] = {}
        self._shared = shared

    @property
    def weight(self) -> Tensor:
        """Of the layer without its branches."""
        return self.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        plain: Tensor = self.linear(x)
        if self._shared.active not in self.branches:
            return plain
        down, up = self.branches[self._shared.active]
        low = x.flatten(0, -2) @ down.T
        return plain.flatten(0, -2).addmm_(low, up.T).view_as(plain)


class View:
    """A shared backbone as one checkpoint has it (`rewards.llava.backbone.Backbone`).

    Args:
        shared: the backbone and its adapters.
        name: of the checkpoint.
        tower: which vision tower it has: "" for the base model's, which others may have as well.
    """

    def __init__(self, shared: Shared, name: str, *, tower: str) -> None:
        self._shared, self._name, self._tower = shared, name, tower
        self.width, self.eps = shared.backbone.width, shared.backbone.eps

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The decoder layers."""
        return self._active().layers

    @property
    def norm(self) -> nn.Module:
        """The norm after them."""
        return self._active().norm

    def features(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """Output of the vision tower, which checkpoints with the base model's tower share."""
        self._active()
        return self._shared.features(self._tower, pictures)

    def project(self, features: Sequence[Tensor], pictures: Sequence[Picture]) -> list[Tensor]:
        """Visual tokens that leave the projector."""
        return self._active().project(features, pictures)

    def embed(self, tokens: Tokens, visual: Sequence[Tensor], *, official: bool = False) -> Embedded:
        """Input embeddings."""
        return self._active().embed(tokens, visual, official=official)

    def sight(self, tokens: Tokens, visual: Sequence[Tensor], *, official: bool = False) -> Sight:
        """The keys of SkipCA."""
        return self._active().sight(tokens, visual, official=official)

    def _active(self) -> Backbone:
        self._shared.activate(self._name)
        return self._shared.backbone
