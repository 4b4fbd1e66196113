"""Where a pipeline's weights lie: a name becomes a folder or a file on this machine, or a sentence with the cure.

A name is ``"embedded"``, a folder in diffusers format, a single ``.safetensors`` checkpoint, or a hub id
``owner/name``. Only safetensors weights are accepted: a pickled checkpoint can run code while it is read.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pipelines.errors import PipelineError, UnknownModel
from pipelines.foreign import one_line

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
INDEX = "model_index.json"
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
DENOISERS = ("transformer", "unet", "transformer_2", "prior")  # the component names that diffusers gives denoisers

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WHOLE = 64 << 20  # files up to this many bytes enter a fingerprint whole
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Source:
    """A pipeline on this machine: ``path`` is a diffusers folder, or one ``.safetensors`` checkpoint."""

    name: str
    path: Path

    @property
    def single_file(self) -> bool:
        """Whether all weights lie in one file, which does not say by itself what its parts are."""
        return self.path.is_file()

    @property
    def revision(self) -> str:
        """The hub's commit (40 hex digits) if the folder is a hub snapshot, else a fingerprint (64) of the content."""
        return _commit(self.path) or fingerprint(self.path)


def locate(name: str, *, variant: str | None = None, revision: str | None = None) -> Source:
    """Find a pipeline by name, downloading it if the name is a hub id that is not in the cache yet.

    Args:
        name: ``"embedded"``, a folder, a ``.safetensors`` file, or a hub id ``owner/name``.
        variant: The weights' variant on the hub, for example ``"fp16"``.
        revision: Branch, tag or commit on the hub.

    Raises:
        UnknownModel: The name is none of the four.
        PipelineError: What it names is no pipeline with safetensors weights.
    """
    if name == EMBEDDED:
        return Source(name, check_folder(EMBEDDED_FOLDER))
    if not name.strip():
        raise UnknownModel(
            f"The model's name is empty. Expected '{EMBEDDED}', a folder, a .safetensors file or a hub id."
        )
    path = Path(name).expanduser()
    if path.is_dir():
        return Source(name, check_folder(path))
    if path.is_file():
        return Source(name, _check_file(path))
    if _HUB_ID.fullmatch(name) and path.suffix not in (*PICKLES, ".safetensors"):
        return Source(name, _download(name, variant, revision))
    raise UnknownModel(_unknown(name, path))


def check_folder(folder: Path) -> Path:
    """Return ``folder`` if it holds a whole pipeline in diffusers format, else say what is missing."""
    index = folder / INDEX
    if not index.is_file():
        raise PipelineError(f"The folder {folder} is no diffusers pipeline: it has no {INDEX}{_folder_hint(folder)}.")
    parts = [name for name, kind in read_json(index).items() if isinstance(kind, list) and any(kind)]
    missing = sorted(part for part in parts if not (folder / part).is_dir())
    if missing:
        raise PipelineError(
            f"The folder {folder} is an incomplete pipeline: {INDEX} names {', '.join(missing)}, but there is no such "
            "subfolder. Copy or download the model again."
        )
    pickled = sorted(part for part in parts if _only_pickled(folder / part))
    if pickled:
        raise PipelineError(
            f"The weights of {', '.join(pickled)} in {folder} are pickled (.bin), which is never read because it can "
            "run code. Use the model's safetensors weights, or convert these once with save_pretrained."
        )
    return folder


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object from a file.

    Raises:
        PipelineError: The file is damaged or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is damaged: {error}. Copy or download the model again.") from error
    if not isinstance(content, dict):
        raise PipelineError(f"{path} holds a {type(content).__name__}, expected a JSON object. Copy the model again.")
    return content


def safetensors_header(path: Path) -> dict[str, dict[str, object]]:
    """Tensor names to ``{"dtype", "shape", "data_offsets"}``, read from the head of a safetensors file.

    The layout is eight bytes of length, then that many bytes of JSON
    (https://huggingface.co/docs/safetensors, "Format"); no weight is read.

    Raises:
        PipelineError: The file does not have that layout.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= path.stat().st_size - 8:
                raise ValueError(f"a header of {size} bytes does not fit into the file")
            header = json.loads(file.read(size))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        if size + 8 + end != path.stat().st_size:
            raise ValueError(f"the file has {path.stat().st_size} bytes, its header promises {size + 8 + end}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PipelineError(f"{path} is no safetensors file, or a broken download: {error}.") from error
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def fingerprint(path: Path) -> str:
    """Content hash of a file or a model folder: SHA-256, 64 hex digits.

    Of a folder, the configuration, tokenizer and safetensors files count, by relative name and content. A file of more
    than 64 MiB enters with its length and 64 blocks of 1 MiB spread evenly over it, so that a large model takes a
    fraction of a second; a change confined to the gaps would go unseen, a different set of weights would not.
    """
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if _counts(file))
    names = [file.name if file == path else file.relative_to(path).as_posix() for file in files]
    states = [file.stat() for file in files]
    return _digest(
        tuple((name, file, s.st_size, s.st_mtime_ns) for name, file, s in zip(names, files, states, strict=True))
    )


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[str, Path, int, int], ...]) -> str:
    """SHA-256 over (name, path, bytes, time of change) of files; the time only tells whether to read them again."""
    digest = hashlib.sha256()
    for name, file, size, _ in files:
        digest.update(f"{name}\0{size}\0".encode())
        _update(digest, file)
    return digest.hexdigest()


def hub_commit(name: str) -> str:
    """The commit of a hub model in the local cache, 40 hex digits; ``""`` if the name is no hub id or not cached."""
    if not _HUB_ID.fullmatch(name):
        return ""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, INDEX)
    return _commit(Path(found).parent) if isinstance(found, str) else ""


def _commit(folder: Path) -> str:
    is_snapshot = folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name)
    return folder.name if is_snapshot else ""


def _counts(file: Path) -> bool:
    return file.suffix in (".json", ".safetensors", ".txt", ".model") and file.is_file()


def _update(digest: hashlib._Hash, file: Path) -> None:
    """Feed a file to the digest, whole or in evenly spread blocks."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _WHOLE:
            digest.update(stream.read())
            return
        for index in range(64):
            stream.seek(index * (size - _BLOCK) // 63)
            digest.update(stream.read(_BLOCK))


def _only_pickled(part: Path) -> bool:
    """Whether a component's folder holds weights, but none of them in safetensors."""
    suffixes = {file.suffix for file in part.iterdir()}
    return ".safetensors" not in suffixes and bool(suffixes & set(PICKLES))


def _folder_hint(folder: Path) -> str:
    inside = sorted(index.parent for index in folder.glob(f"*/{INDEX}"))
    if inside:
        return f", but {inside[0]} has one: name that folder"
    if (folder.parent / INDEX).is_file():
        return f"; it looks like one part of {folder.parent}: name that folder"
    if any(folder.glob("adapter_config.json")) or any(folder.glob("*lora*.safetensors")):
        return "; it looks like a LoRA: name the base model, and give this folder as lora"
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return f"; for a single-file checkpoint name the file, for example {files[0]}"
    return "; expected what save_pretrained writes, that file and a subfolder for each part"


def _check_file(path: Path) -> Path:
    if path.suffix in PICKLES:
        raise PipelineError(
            f"{path} is a pickled checkpoint, which is never read because it can run code. Use the model's "
            ".safetensors file."
        )
    if path.suffix != ".safetensors":
        raise PipelineError(f"{path} is no checkpoint: expected a .safetensors file or a folder in diffusers format.")
    header = safetensors_header(path)
    if header and all("lora" in key.lower() or key.endswith(".alpha") for key in header):
        raise PipelineError(f"{path} holds LoRA weights, not a model. Name the base model, and give this file as lora.")
    return path


def _unknown(name: str, path: Path) -> str:
    if (
        name.startswith((".", "/", "~"))
        or "\\" in name
        or name.count("/") > 1
        or path.suffix in (*PICKLES, ".safetensors")
    ):
        return f"There is no file or folder {name}. Check the path, or use the package's own model, 'embedded'."
    close = difflib.get_close_matches(name.lower(), [EMBEDDED], cutoff=0.5)
    hint = f"did you mean '{EMBEDDED}'? " if close else ""
    return (
        f"Unknown model '{name}': {hint}Expected '{EMBEDDED}', a folder in diffusers format, a .safetensors file, "
        "or a hub id such as owner/name."
    )


def _download(name: str, variant: str | None, revision: str | None) -> Path:
    """Bring a hub pipeline into the local cache; with a full cache this needs no network."""
    from diffusers import DiffusionPipeline
    from huggingface_hub.errors import HFValidationError

    try:
        folder = DiffusionPipeline.download(name, variant=variant, revision=revision, use_safetensors=True)
    except (OSError, ValueError, HFValidationError) as error:
        raise PipelineError(_hub_failure(name, error)) from error
    return check_folder(Path(folder))


def _hub_failure(name: str, error: Exception) -> str:
    """One sentence on why a hub model could not be had, with the cure that fits the cause."""
    from huggingface_hub import constants, errors

    chain = {type(cause) for cause in _causes(error)}
    if any(issubclass(kind, errors.GatedRepoError) for kind in chain):
        return f"The hub model {name} is gated: accept its licence on huggingface.co/{name}, then run `hf auth login`."
    if any(issubclass(kind, errors.RevisionNotFoundError) for kind in chain):
        return f"The hub model {name} has no such revision. Leave the revision out, or look it up on its hub page."
    if any(issubclass(kind, errors.RepositoryNotFoundError) for kind in chain):
        return f"There is no hub model {name}, or it is private (run `hf auth login`); nor such a folder here."
    if "safetensors" in str(error) and "necessary" in str(error):
        return (
            f"The hub model {name} has no safetensors weights; pickled ones are never read because they can run code."
        )
    if "variant" in str(error):
        return f"The hub model {name} does not have that variant of its weights: {one_line(error)}"
    if constants.HF_HUB_OFFLINE:
        return (
            f"There is no folder {name}, no hub model of that name in the local cache, and HF_HUB_OFFLINE forbids a "
            f"download. Unset it, or run `hf download {name}` where there is a network; 'embedded' needs none."
        )
    reason = one_line(error)
    return f"The hub model {name} could not be downloaded ({reason}). Check the network; 'embedded' needs none."


def _causes(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
