"""Load any diffusers pipeline by name, ready to run: device, dtype, LoRA weights, offload, compiled or not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines.errors import PipelineError
from pipelines.foreign import Pipeline, bars_off, sentences
from pipelines.lora import add_loras
from pipelines.placement import Offload, check_offload, pick_device, pick_dtype, place
from pipelines.sources import DENOISERS, EMBEDDED, EMBEDDED_FOLDER, INDEX, Source, hub_commit, locate, read_json


@dataclass(frozen=True)
class LoadOptions:
    """What is asked of a model less often.

    Attributes:
        variant: The hub's variant of the weights, for example ``"fp16"``.
        revision: Branch, tag or commit on the hub.
        config: For a single-file checkpoint, the diffusers folder or hub id that describes its parts; found from the
            checkpoint when None, which needs the hub or its cache.
        vae_slicing: Decode one picture of a batch after the other.
        vae_tiling: Decode large pictures in tiles.
        compile: Compile the denoiser with torch.compile: the first steps take minutes, the others less time. The
            numbers change in the last digits.
    """

    variant: str | None = None
    revision: str | None = None
    config: str | None = None
    vae_slicing: bool = False
    vae_tiling: bool = False
    compile: bool = False


def load_pipeline(
    name: str = EMBEDDED,
    *,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    offload: Offload = "none",
    lora: str | Sequence[str] | None = None,
    options: LoadOptions | None = None,
) -> Pipeline:
    """Load the pipeline that a model itself names, of whatever class; weights are read from safetensors only.

    Args:
        name: ``"embedded"``, a folder in diffusers format, a ``.safetensors`` checkpoint, or a hub id ``owner/name``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, …
        dtype: ``"auto"`` (see `pipelines.placement`), a name such as ``"float16"`` or ``"bf16"``, or a torch dtype.
        offload: ``"model"`` keeps one part of the model at a time on the accelerator, ``"sequential"`` one layer.
        lora: LoRA weights, each a file, a folder or a hub id (``owner/name`` or ``owner/name/file.safetensors``), with
            ``:0.8`` behind it for another weight than 1.
        options: What is asked less often.

    Returns:
        The pipeline in inference mode, its progress bar off; a safety checker is left as the model has it.

    Raises:
        PipelineError: The name, the device or an option leads nowhere; the message says what would.
        OutOfMemory: The model does not fit on the device.
    """
    options = options or LoadOptions()
    where = pick_device(device)
    check_offload(offload, where)
    source = locate(name, variant=options.variant, revision=options.revision)
    pipe = _read(source, pick_dtype(dtype, where, source, options.variant), options)
    _check_prompted(pipe)
    add_loras(pipe, [lora] if isinstance(lora, str) else list(lora or ()))
    _set_up_decoder(pipe, options)
    place(pipe, where, offload)
    if options.compile:
        for denoiser in (getattr(pipe, part, None) for part in DENOISERS):
            if isinstance(denoiser, torch.nn.Module):
                denoiser.compile()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_preview_decoder(name: str, pipe: Pipeline) -> torch.nn.Module:
    """Load a tiny decoder (TAESD and its kin) that shows unfinished pictures at a fraction of the VAE's cost.

    Args:
        name: A folder or hub id with an ``AutoencoderTiny``, for example ``"madebyollin/taesdxl"``.
        pipe: The pipeline whose latents it is to decode; gives device and dtype.

    Raises:
        PipelineError: It cannot be loaded, or it was made for latents with another number of channels.
    """
    from diffusers import AutoencoderTiny

    config = getattr(getattr(pipe, "vae", None), "config", None)
    channels = getattr(config, "latent_channels", None)
    with bars_off(), sentences(name, "preview decoder"):
        read: Callable[..., Pipeline] = AutoencoderTiny.from_pretrained
        tiny = read(str(Path(name).expanduser()), use_safetensors=True)
    if tiny.config.latent_channels != channels:
        raise PipelineError(
            f"The preview decoder {name} decodes latents of {tiny.config.latent_channels} channels, but those of "
            f"{type(pipe).__name__} have {channels}; take the decoder made for this model."
        )
    placed: torch.nn.Module = tiny.to(device=pipe._execution_device, dtype=pipe.vae.dtype).eval()
    return placed


def default_call(model: str | Pipeline) -> dict[str, object]:
    """Arguments for the pipeline's call that suit the model, from the ``defaults.json`` in its folder; none otherwise.

    Args:
        model: A pipeline, or a name as for `load_pipeline`.
    """
    folder = _home(model)
    defaults = folder / "defaults.json" if folder else None
    return read_json(defaults) if defaults and defaults.is_file() else {}


def model_revision(model: str | Pipeline) -> str:
    """The state of a model's weights, to write beside a result.

    Args:
        model: A pipeline, or a name as for `load_pipeline` (which is not downloaded for this).

    Returns:
        The commit (40 hex digits) of a hub model, a content hash (64) of a folder or file, ``""`` where neither is
        known, as for a pipeline that was put together in memory.
    """
    home = _home(model)
    if home:
        return Source(str(model), home).revision
    return hub_commit(_origin(model))


def _read(source: Source, dtype: torch.dtype, options: LoadOptions) -> Pipeline:
    from diffusers import DiffusionPipeline

    from pipelines.checkpoints import read_checkpoint

    with bars_off(), sentences(source.name, "model"):
        if source.single_file:
            return read_checkpoint(source.path, dtype, options.config)
        read: Callable[..., Pipeline] = DiffusionPipeline.from_pretrained
        return read(str(source.path), dtype=dtype, variant=options.variant, use_safetensors=True, local_files_only=True)


def _check_prompted(pipe: Pipeline) -> None:
    """Refuse a pipeline that does not start from a prompt alone, rather than to take it for text-to-image."""
    arguments = inspect.signature(type(pipe).__call__).parameters
    media = sorted({"image", "video", "image_embeds", "audio"} & set(arguments))
    if "prompt" in arguments and (not media or _can_leave_media_out(type(pipe))):
        return
    wants = f"it starts from {', '.join(media)}" if media else "it takes no prompt"
    raise PipelineError(
        f"{type(pipe).__name__} makes no pictures from a prompt alone: {wants}. Load a text-to-image or text-to-video "
        "model, or load this one with diffusers and give DiffusersSampler the pipeline and its further inputs."
    )


def _can_leave_media_out(kind: type) -> bool:
    """Whether diffusers lists a pipeline class as text-to-image although its call takes pictures too."""
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING  # imports every family: seconds

    return kind in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()


def _set_up_decoder(pipe: Pipeline, options: LoadOptions) -> None:
    vae = getattr(pipe, "vae", None)
    for option, verb in (("vae_slicing", "enable_slicing"), ("vae_tiling", "enable_tiling")):
        if not getattr(options, option):
            continue
        try:
            getattr(vae, verb)()
        except (AttributeError, NotImplementedError) as error:
            raise PipelineError(f"The decoder {type(vae).__name__} does not support {option}; leave it out.") from error


def _origin(model: str | Pipeline) -> str:
    """What a pipeline was loaded from: a path or a hub id; a name stays what it is."""
    return model if isinstance(model, str) else str(getattr(model.config, "_name_or_path", "") or "")


def _home(model: str | Pipeline) -> Path | None:
    """The folder or file that a model was loaded from, if it is on this machine."""
    name = _origin(model)
    path = EMBEDDED_FOLDER if name == EMBEDDED else Path(name).expanduser()
    return path if name and (path.is_file() or (path / INDEX).is_file()) else None
