"""The model in training: a base model, a head, and low-rank matrices (peft) or the model's own weights that move."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rewards.errors import CheckpointError
from rewards.llava.backbone import Backbone, Picture
from rewards.llava.batches import Row
from rewards.llava.decoder import checkpoint_layers, device_of
from rewards.llava.families import Base, family_of, load_base, refill, resolve
from rewards.llava.heads import PublishedHead, build_head
from rewards.llava.loading import check_family
from rewards.llava.low_rank import plain
from rewards.llava.official import PROJECTORS, Official, RewardConfig, apply, check_fit, is_head
from rewards.llava.scoring import Scorer, distinct
from rewards.llava.weights import read_json
from rewards.training.settings import Settings

SKIPCA = ("W_q", "W_k", "W_v")
_CLIP = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


class Trainee(nn.Module):
    """Backbone and head as one module; only what is trained requires gradients, in float32.

    Args:
        backbone: of the base model, changed in place: its linear layers get low-rank matrices, unless all is trained.
        head: to be trained.
        pad_id: fills a batch.
        family: name of the backbone's family.
        settings: of the training.

    Attributes:
        frozen_tower: names and values of what of the vision tower is not trained: nothing where the tower is.
    """

    def __init__(self, backbone: Backbone, head: PublishedHead, pad_id: int, family: str, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone, self.head = cast(nn.Module, backbone), head
        self.targets = () if settings.full else _adapt(backbone, family, settings)
        self._scorer = Scorer(backbone, head, pad_id)
        self.backbone.requires_grad_(False)
        self.head.requires_grad_(not settings.lora_only)
        for name, parameter in self.backbone.named_parameters():
            if moves(name, settings):
                parameter.requires_grad_().data = parameter.data.float()
        named = self.backbone.named_parameters()
        tower = {name: value for name, value in named if is_tower(name) and not is_projector(name)}
        self.frozen_tower: Mapping[str, nn.Parameter] = {} if settings.tower else tower
        if settings.checkpointing:
            checkpoint_layers(backbone)

    @property
    def device(self) -> torch.device:
        """Where the head lies."""
        return device_of(self.head)

    def forward(self, rows: Sequence[Row], features: Sequence[Tensor] | None = None) -> Tensor:
        """Outputs (B, d) of the head, float32, in one pass; `features` are those of `distinct(rows)`, or None."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.settings.bfloat16 else nullcontext():
            outputs = self._scorer.outputs(rows, self.features(distinct(rows)) if features is None else features)
        return outputs.float().clone()  # FSDP's hooks would be lost on a view

    def features(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """What the vision tower gives for each picture."""
        return self._scorer.backbone.features(pictures)

    @property
    def layers(self) -> Sequence[nn.Module]:
        """Of the decoder."""
        return self._scorer.backbone.layers

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and values of what is trained, in the order of the names."""
        yield from sorted((name, value) for name, value in self.named_parameters() if value.requires_grad)

    def start_from(self, checkpoint: Official) -> None:
        """Take over low-rank matrices, head and projector of a checkpoint; where all is trained, the head alone.

        Raises:
            CheckpointError: it is a full fine-tune where low-rank matrices are trained, or does not fit.
        """
        if self.settings.full:
            _check_head(checkpoint, self.head)
            self.head.load_state_dict(checkpoint.head)
            return
        low = _low_rank(self.backbone)
        _check_start(checkpoint, self.head, low)
        with torch.no_grad():
            for name, pair in checkpoint.lora.items():
                for mine, theirs in zip(low[name], pair, strict=True):
                    mine.copy_(theirs)
            weights = dict(self.backbone.named_parameters())
            for name, tensor in checkpoint.projector.items():
                weights[name].copy_(tensor)
        self.head.load_state_dict(checkpoint.head)

    def official(self, folder: Path, gather: Callable[[nn.Parameter], Tensor] = torch.Tensor.detach) -> Official:
        """What is trained, as a checkpoint that `save_official` writes.

        Args:
            folder: holds the base model.
            gather: gives all of a parameter, where processes hold parts.
        """
        head, ours = self.head, self.settings
        named = {**dict(self.backbone.named_parameters()), **self.frozen_tower}  # which may be hidden
        parts = {name: value for name, value in named.items() if ours.full or is_projector(name)}
        mode, outputs = "masked" if head.skipca else "", head.value_head.out_features
        return Official(
            folder=folder,
            family=family_of(read_json(folder / "config.json")),
            settings=RewardConfig(head.skipca, ours.tau, ours.loss == "gpm", outputs, mode),
            head={name: gather(value) for name, value in head.named_parameters()},
            projector={name: gather(value) for name, value in parts.items()},
            lora={name: (gather(down), gather(up)) for name, (down, up) in _low_rank(self.backbone).items()},
            scale=1.0 if ours.full else ours.alpha / ours.rank,
            targets=self.targets,
            full=ours.full,
        )


def load_trainee(
    base: str | Path, settings: Settings, *, device: torch.device | str = "cpu", start: Official | None = None
) -> tuple[Trainee, Base]:
    """A base model with a new head, or with head and weights of the checkpoint `start`.

    Args:
        base: folder or hub name of the base model, or "embedded".
        settings: of the training.
        device: where it runs.
        start: where training begins instead of at initial values.

    Raises:
        CheckpointError: no such base model, or `start` is another one's.
    """
    folder = resolve(base)
    dtype = torch.bfloat16 if settings.bfloat16 else torch.float32
    loaded = load_base(folder, num_crops=settings.num_crops, device=device, dtype=dtype, skip=is_head)
    if start is not None:
        check_family(start, folder)
        _begin(start, loaded.backbone, settings)
    head = build_head(initial_head(loaded.backbone.width, settings), loaded.backbone.eps).to(device)
    family = family_of(read_json(folder / "config.json")).name
    trainee = Trainee(loaded.backbone, head, loaded.inputs.pad_id, family, settings)
    if start is not None:
        trainee.start_from(start)
    return trainee, loaded


def initial_head(width: int, settings: Settings) -> dict[str, Tensor]:
    """Parameters of a new head: normal numbers of deviation 1 / (H + 1), as published, and a norm of ones."""
    draws = torch.Generator().manual_seed(settings.seed)
    shapes = {"value_head.weight": (settings.outputs, width)}
    if settings.skipca:
        shapes |= {f"{name}.weight": (width, width) for name in SKIPCA}
    state = {name: torch.randn(shape, generator=draws) / (width + 1) for name, shape in shapes.items()}
    return state | ({"ca_layernorm.weight": torch.ones(width)} if settings.skipca else {})


def is_projector(name: str) -> bool:
    """Whether a parameter of a backbone belongs to the projector."""
    return any(f".{part}" in f".{name}" for part in PROJECTORS)


def moves(name: str, settings: Settings) -> bool:
    """Whether a parameter of a backbone is trained."""
    if ".lora_" in name:
        return True
    if is_projector(name):
        return settings.projector and not settings.lora_only
    return settings.full and (settings.tower or not is_tower(name))


def _begin(start: Official, backbone: Backbone, settings: Settings) -> None:
    """Put into the base model what of `start` is not trained as low-rank matrices."""
    if not settings.full:
        check_fit(start, backbone)
    elif start.full:
        refill(backbone, start.folder, skip=is_head)
    else:
        apply(start, backbone)


def _adapt(backbone: Backbone, family: str, settings: Settings) -> tuple[str, ...]:
    """Put low-rank matrices beside the linear layers that the published trainer names; returns these names."""
    from peft import LoraConfig, inject_adapter_in_model

    module = cast(nn.Module, backbone)
    layers = {id(part) for layer in backbone.layers for part in layer.modules()}
    names = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and (id(part) in layers or (settings.tower and _in_tower(name)))
    ]
    alpha: Any = settings.alpha  # peft says a whole number, and takes any
    config = LoraConfig(
        r=settings.rank, lora_alpha=alpha, lora_dropout=settings.dropout, target_modules=names,
        init_lora_weights="gaussian",
    )  # fmt: skip
    with torch.random.fork_rng():  # peft draws from the global generator; its numbers are replaced below
        inject_adapter_in_model(config, module)
    draws = torch.Generator().manual_seed(settings.seed + 1)
    for down, _ in (pair for _, pair in sorted(_low_rank(module).items())):
        down.data.copy_(torch.randn(down.shape, generator=draws) / settings.rank)
    return tuple(sorted({name.rpartition(".")[2] for name in names})) if family == "phi3v" else tuple(names)


def _check_start(checkpoint: Official, head: nn.Module, low: Mapping[str, tuple[nn.Parameter, nn.Parameter]]) -> None:
    """Raise `CheckpointError` unless head and matrices of `checkpoint` have the shapes of the training's."""
    if checkpoint.full or not checkpoint.lora:
        raise CheckpointError(
            f"{checkpoint.folder} has no low-rank matrices; begin from a LoRA checkpoint, or train all weights."
        )
    _check_head(checkpoint, head)
    for name, (down, up) in checkpoint.lora.items():
        if name not in low or low[name][0].shape != down.shape or low[name][1].shape != up.shape:
            raise CheckpointError(
                f"{checkpoint.folder} holds matrices {tuple(down.shape)} for {name!r}, which this training does "
                "not have; expected a LoRA checkpoint of the same base model and rank."
            )


def _check_head(checkpoint: Official, head: nn.Module) -> None:
    wanted = {name: value.shape for name, value in head.state_dict().items()}
    if wanted != {name: value.shape for name, value in checkpoint.head.items()}:
        raise CheckpointError(
            f"{checkpoint.folder} has another head; begin from a checkpoint with as many outputs, and with SkipCA if "
            "this training has it."
        )


def _in_tower(name: str) -> bool:
    """Whether a linear layer belongs to a vision tower and is no part of the projector."""
    tower = any(f".{part}" in f".{name}" for part in ("img_processor.", "vision_tower.", "visual.blocks."))
    return tower and (name.rpartition(".")[2] in _CLIP or "visual.blocks." in name)


def is_tower(name: str) -> bool:
    """Whether a parameter belongs to a vision tower; those of projectors are asked for before."""
    return any(f".{part}" in f".{name}" for part in ("img_processor.", "vision_tower.", "visual."))


def _low_rank(module: nn.Module) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """Matrices (A, B) by the names of the layers they stand beside."""
    halves: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        owner, found, half = plain(name).partition(".lora_")
        if found:
            halves.setdefault(owner, {})[half[:1]] = parameter
    return {name: (pair["A"], pair["B"]) for name, pair in halves.items()}
