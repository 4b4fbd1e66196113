"""From a published checkpoint's folder or hub name to its reward: which base model, which mode, what to warn of."""

import warnings
from pathlib import Path
from typing import Literal

import torch

from rewards.errors import CheckpointError, RewardError
from rewards.llava.backbone import Backbone
from rewards.llava.decoder import compile_layers, device_of
from rewards.llava.families import EMBEDDED_NAME, Base, family_of, load_base, resolve
from rewards.llava.heads import build_head
from rewards.llava.hub import locate
from rewards.llava.layouts import NUM_CROPS
from rewards.llava.official import Official, apply, is_head, read_official, still_initial
from rewards.llava.published import PublishedReward
from rewards.llava.scoring import Scorer
from rewards.llava.weights import DeviceMap, read_json

SkipCAMode = Literal["masked", "official"]
Pooling = Literal["eos", "mean"]

BASES = {
    "phi3v": "microsoft/Phi-3.5-vision-instruct",
    "qwen": "Qwen/Qwen2.5-VL-7B-Instruct",
    "llava_next": "llava-hf/llava-v1.6-vicuna-13b-hf",
}
_LAST = 32  # layer_id by which the published code means the last layer after its norm, however shallow the model is


def load_published(  # noqa: PLR0913  what a published checkpoint leaves open
    checkpoint: str | Path,
    *,
    base: str | Path | None = None,
    skipca: SkipCAMode | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    device_map: DeviceMap | None = None,
    num_crops: int = NUM_CROPS,
    pooling: Pooling = "eos",
    layer: int | None = None,
    batch_size: int | None = None,
    compile: bool = False,
    allow_empty: bool = False,
) -> PublishedReward:
    """The reward of a checkpoint in the published layout.

    Args:
        checkpoint: its folder or name; see `hub.locate`.
        base: folder or hub name of the base model; the published one of that family if None, or `checkpoint` itself
            after a full fine-tune.
        skipca: "masked" attends to the picture's tokens only, so that no score depends on its companions; "official"
            repeats the published code with batches of `batch_size` pictures in the order given. None is "masked" where
            these two differ only by batching, and where the checkpoint says so; Qwen with SkipCA of the published
            trainer, whose code never looks at the picture, is "official" one picture at a time.
        dtype: of the backbone; the head is float32.
        device: where it runs.
        device_map: which module goes where, instead of `device`; see `weights.fill`.
        num_crops: for Phi, at most so many crops of a picture.
        pooling: "eos" reads the last token, "mean" all of them.
        layer: which layer's output is read, before the final norm; None for the last one after it, for which the
            published code says 32.
        batch_size: pictures in one forward pass; see `published.PublishedReward`.
        compile: run the decoder layers through `torch.compile`, which takes its time at the first calls, and on a CPU
            needs a C compiler; on a tiny model scores differed by 3e-7 there, on a GPU it was not tried.
        allow_empty: take prompts without a word.

    Raises:
        RewardError: an option that does not exist.
        CheckpointError: a damaged checkpoint, or another one's base model.
    """
    check_skipca(skipca)
    _check_choice("pooling", pooling, ("eos", "mean"))
    read = read_official(locate(checkpoint))
    name = base_name(read, base)
    folder = base_folder(read, name)
    check_family(read, folder)
    loaded = load_base(folder, num_crops=num_crops, device=device, dtype=dtype, device_map=device_map, skip=is_head)
    warn_of_initial(read, loaded)
    apply(read, loaded.backbone)
    if compile:
        compile_layers(loaded.backbone)
    return build_reward(
        read, loaded, base=name, skipca=skipca, pooling=pooling, layer=layer, batch_size=batch_size,
        allow_empty=allow_empty,
    )  # fmt: skip


def build_reward(
    read: Official,
    loaded: Base,
    *,
    base: str | Path,
    skipca: SkipCAMode | None = None,
    pooling: Pooling = "eos",
    layer: int | None = None,
    batch_size: int | None = None,
    allow_empty: bool = False,
) -> PublishedReward:
    """The reward of a checkpoint on a backbone to which it is applied already; options as for `load_published`."""
    official = _is_official(read, skipca)
    scorer = build_scorer(
        read, loaded.backbone, loaded.inputs.pad_id, official=official, mean=pooling == "mean", layer=layer
    )
    one_by_one = official and skipca is None
    return PublishedReward(
        read,
        scorer,
        loaded.inputs,
        batch_size=1 if one_by_one else batch_size,
        base=str(base),
        base_folder=loaded.folder,
        allow_empty=allow_empty,
    )


def build_scorer(
    read: Official,
    backbone: Backbone,
    pad_id: int,
    *,
    official: bool = False,
    mean: bool = False,
    layer: int | None = None,
) -> Scorer:
    """Backbone, with the checkpoint applied, and the checkpoint's head.

    Raises:
        CheckpointError: the head is damaged, or another backbone's.
    """
    head = build_head(read.head, backbone.eps)
    if head.value_head.in_features != backbone.width:
        raise CheckpointError(
            f"The head in {read.folder} is {head.value_head.in_features} wide, the base model {backbone.width}; pass "
            "the base model that the checkpoint was trained on as base=."
        )
    _check_outputs(read, head.value_head.out_features)
    depth = len(backbone.layers)
    last = layer == depth or (layer == _LAST and depth <= _LAST)
    return Scorer(
        backbone,
        head.to(device_of(backbone.norm)),
        pad_id,
        official=official,
        mean=mean,
        layer=None if last else layer,
    )


def _check_outputs(read: Official, outputs: int) -> None:
    if outputs > 1 and outputs % 2:
        raise CheckpointError(
            f"The head in {read.folder} has {outputs} outputs; expected one, or an even number for general preference."
        )
    if any(name.startswith("prompt_head.") for name in read.head):
        raise CheckpointError(
            f"The checkpoint {read.folder} has a prompt_head, which its published code cannot use either; expected a "
            "checkpoint trained without one."
        )


def _is_official(read: Official, skipca: SkipCAMode | None) -> bool:
    mode = skipca or read.settings.skipca_mode
    if mode:
        return mode == "official"
    return read.family.name == "qwen" and read.settings.add_cross_attention


def base_name(read: Official, base: str | Path | None) -> str | Path:
    """What the caller says, or the base model that is on record if it is here, or the published one of that family.

    Raises:
        CheckpointError: the family has none.
    """
    if base is not None:
        return base
    if read.full:
        return read.folder
    recorded = read_json(read.folder / "lora/adapter_config.json").get("base_model_name_or_path")
    if isinstance(recorded, str) and (recorded == EMBEDDED_NAME or Path(recorded).is_dir()):
        return recorded
    if read.family.name not in BASES:
        raise CheckpointError(f"The checkpoint {read.folder} does not say its base model; pass its folder as base=.")
    return BASES[read.family.name]


def base_folder(read: Official, base: str | Path) -> Path:
    """The folder of the base model, downloaded if need be.

    Raises:
        CheckpointError: there is none, here or on the hub.
    """
    try:
        return resolve(base)
    except CheckpointError as error:
        raise CheckpointError(
            f"The checkpoint {read.folder} needs its base model {str(base)!r}, which is neither a folder here nor to "
            "be had from the hub; download it and pass its folder as base=."
        ) from error


def check_family(read: Official, base: Path) -> None:
    """Raise `CheckpointError` if the folder `base` holds another family's model."""
    found = family_of(read_json(base / "config.json")).name
    if found != read.family.name:
        published = BASES.get(read.family.name, f"a {read.family.name} model")
        raise CheckpointError(
            f"The checkpoint {read.folder} was trained on {read.family.name}, but {str(base)!r} is {found}; expected a "
            f"base model such as {published}."
        )


def warn_of_initial(read: Official, loaded: Base) -> None:
    """Warn of parts that training did not move; `loaded` is the base model before the checkpoint is applied."""
    untouched = still_initial(read, loaded.backbone)
    if untouched:
        parts = " and the ".join(untouched)
        warnings.warn(
            f"{read.folder}: training did not move the {parts} of this checkpoint, which still hold"
            f"{'s' if len(untouched) == 1 else ''} initial values; the scores are what its weights say, perhaps not "
            "what its authors meant.",
            UserWarning,
            stacklevel=4,
        )


def check_skipca(skipca: str | None) -> None:
    """Raise `RewardError` unless it is one of the two modes, or None."""
    _check_choice("skipca", skipca, (None, "masked", "official"))


def _check_choice(option: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        expected = " or ".join(repr(choice) for choice in choices if choice is not None)
        raise RewardError(f"Got {option} {value!r}; expected {expected}.")
