"""From a base model's folder or hub name to its backbone and its inputs, by the model_type of its config.json."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from rewards.errors import CheckpointError, RewardError
from rewards.llava import llava_next, phi3v, qwen
from rewards.llava.backbone import Backbone, Foreign, Inputs
from rewards.llava.checkpoint import EMBEDDED, SETTINGS_FILE, read_settings
from rewards.llava.layouts import NUM_CROPS, PhiInputs, QwenInputs, llava_inputs, llava_next_inputs, qwen_limits
from rewards.llava.normalise import Normalise
from rewards.llava.tower import layers_run
from rewards.llava.weights import DeviceMap, empty, fill, read_json, weight_files

Json = dict[str, Any]
EMBEDDED_NAME = "embedded"
_FILES = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.yaml")


class Base(NamedTuple):
    """A base model: its backbone, what prepares its inputs, and the folder that it was read from."""

    backbone: Backbone
    inputs: Inputs
    folder: Path


@dataclass(frozen=True)
class Family:
    """One kind of backbone.

    Attributes:
        name: what we call it.
        build: the untrained module from config.json.
        rename: our parameter's name for a checkpoint's, or None.
        inputs: from tokenizer, config.json, preprocessor_config.json and the number of crops.
    """

    name: str
    build: Callable[[Json], nn.Module]
    rename: Callable[[Json], Callable[[str], str | None]]
    inputs: Callable[[Foreign, Json, Json, int], Inputs]


def family_of(config: Json) -> Family:
    """The family that a config.json belongs to.

    Raises:
        CheckpointError: none of ours.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise CheckpointError(f"Got model_type {kind!r} in config.json; expected one of {', '.join(FAMILIES)}.")
    return FAMILIES[kind]


def load_base(
    base: str | Path,
    *,
    num_crops: int = NUM_CROPS,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    device_map: DeviceMap | None = None,
    skip: Callable[[str], bool] = lambda _: False,
) -> Base:
    """The base model in a folder or of a hub name, without its language-model head.

    Args:
        base: folder, or for example "microsoft/Phi-3.5-vision-instruct".
        num_crops: for Phi, at most so many crops of a picture.
        device: where it goes.
        dtype: of all parameters.
        device_map: which module goes where, instead; see `weights.fill`.
        skip: names in the weights that are not the base model's.

    Raises:
        CheckpointError: no such folder, another family, or damaged weights.
    """
    folder = resolve(base)
    config = read_json(folder / "config.json")
    family = family_of(config)
    with understood(folder / "config.json"):
        module = empty(lambda: family.build(config))
        rename = family.rename(config)
    fill(
        module,
        weight_files(folder),
        lambda name: None if skip(name) else rename(name),
        device=device,
        dtype=dtype,
        device_map=device_map,
    )
    tokenizer = load_tokenizer(folder)
    with understood(folder / "preprocessor_config.json"):
        inputs = family.inputs(tokenizer, config, preprocessing(folder), num_crops)
    return Base(cast(Backbone, module), inputs, folder)


def refill(backbone: Backbone, folder: Path, *, skip: Callable[[str], bool]) -> None:
    """Give a backbone the weights of another model of the same kind and size, in place.

    Args:
        backbone: as `load_base` made it.
        folder: of the model.
        skip: as of `load_base`.

    Raises:
        CheckpointError: another model's, or damaged weights.
    """
    config = read_json(folder / "config.json")
    with understood(folder / "config.json"):
        rename = family_of(config).rename(config)
    module = cast(nn.Module, backbone)
    first = next(module.parameters())
    files = weight_files(folder)
    fill(module, files, lambda name: None if skip(name) else rename(name), device=first.device, dtype=first.dtype)


def preprocessing(folder: Path) -> Json:
    """What preprocessor_config.json says, or in a folder of ours the settings of its reward."""
    if (folder / SETTINGS_FILE).is_file():
        own = read_settings(folder)
        return {"image_mean": own.image.mean, "image_std": own.image.std, "template": own.template}
    settings = folder / "preprocessor_config.json"
    return read_json(settings) if settings.is_file() else {}


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside, over settings that are missing or make no sense, into a `CheckpointError`."""
    try:
        yield
    except RewardError:
        raise
    except Exception as error:  # whatever other people's code makes of a wrong number
        said = str(error).splitlines()[0] if str(error) else "no message"
        raise CheckpointError(
            f"{path} describes no model that can be built ({type(error).__name__}: {said}); copy it again."
        ) from error


def resolve(name: str | Path, files: Sequence[str] = _FILES) -> Path:
    """The folder itself, or the hub's repository of that name in the local cache, downloaded if need be.

    Args:
        name: folder or hub name, or "embedded" for the model that comes with the package.
        files: patterns of what to download.

    Raises:
        CheckpointError: neither exists.
    """
    if name == EMBEDDED_NAME:
        return EMBEDDED
    if Path(name).is_dir():
        return Path(name)
    if isinstance(name, Path) or not 1 <= str(name).count("/") <= 1:
        raise CheckpointError(
            f"There is no folder {str(name)!r}; expected a model folder or a hub name such as 'owner/model'."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # the hub client has a class for each way to fail
        raise CheckpointError(
            f"There is no folder {name!r}, and the hub gave no such model ({type(error).__name__}); check the "
            "name, or the network."
        ) from error


def load_tokenizer(folder: Path) -> Foreign:
    """The fast tokenizer in `folder`: tokenizer.json, with the begin and end that tokenizer_config.json asks for.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"There is no tokenizer.json in {folder}; expected the tokenizer of the base model.")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizer library raises plain ones
        raise CheckpointError(f"The tokenizer in {folder} is damaged: {error}. Copy it again.") from error
    settings = folder / "tokenizer_config.json"
    _set_ends(tokenizer, read_json(settings) if settings.is_file() else {})
    return tokenizer


def _set_ends(tokenizer: Foreign, settings: Json) -> None:
    """Begin and end tokens as transformers 4 sets them for a Llama tokenizer, whatever stands in tokenizer.json."""
    from tokenizers.processors import TemplateProcessing

    if not settings.get("tokenizer_class", "").startswith("LlamaTokenizer"):
        return
    begin = [tokenizer.bos_token] if settings.get("add_bos_token", True) else []
    end = [tokenizer.eos_token] if settings.get("add_eos_token", False) else []
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*begin, "$A", *end],
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in {*begin, *end}],
    )


def _phi_depth(config: Json) -> int:
    vision = config["img_processor"].get("vision_config", {})
    return layers_run(vision.get("num_hidden_layers", 24), phi3v.FEATURE)


def _phi_inputs(tokenizer: Foreign, config: Json, settings: Json, num_crops: int) -> Inputs:
    return PhiInputs(tokenizer, Normalise.of(settings), num_crops)


def _qwen_inputs(tokenizer: Foreign, config: Json, settings: Json, num_crops: int) -> Inputs:
    return QwenInputs(tokenizer, config["image_token_id"], Normalise.of(settings), qwen_limits(settings))


PHI = Family(
    "phi3v", phi3v.Phi3V, lambda config: partial(phi3v.checkpoint_name, tower_layers=_phi_depth(config)), _phi_inputs
)
QWEN = Family("qwen", qwen.QwenVL, lambda config: qwen.checkpoint_name, _qwen_inputs)
LLAVA_NEXT = Family(
    "llava_next",
    llava_next.LlavaNext,
    lambda config: partial(llava_next.checkpoint_name, tower_layers=llava_next.tower_layers(config)),
    lambda tokenizer, config, settings, _: llava_next_inputs(tokenizer, config, settings),
)
LLAVA = Family(
    "llava",
    llava_next.Llava,
    lambda config: partial(llava_next.checkpoint_name, tower_layers=llava_next.tower_layers(config)),
    lambda tokenizer, config, settings, _: llava_inputs(tokenizer, config, settings),
)
FAMILIES = {"phi3_v": PHI, "qwen2_5_vl": QWEN, "llava_next": LLAVA_NEXT, "llava": LLAVA}
