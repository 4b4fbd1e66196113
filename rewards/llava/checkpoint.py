"""A LLaVA-Reward on disk: a stock LLaVA folder, and beside it the head and how pictures and prompts are prepared.

    config.json, model.safetensors, tokenizer*.json     as transformers saves them
    reward_head.safetensors                             parameters of `head.SkipCA` or `head.Linear`
    reward.json                                         `Settings`

Nothing is ever unpickled.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from rewards.errors import CheckpointError
from rewards.llava.head import EPS, Linear, SkipCA
from rewards.llava.images import ImageSettings

EMBEDDED = Path(__file__).parent / "embedded"
HEAD_FILE = "reward_head.safetensors"
SETTINGS_FILE = "reward.json"


@dataclass(frozen=True)
class Settings:
    r"""What a checkpoint says beside its weights.

    Attributes:
        template: text with "<image>" and "{prompt}", for example "USER: <image>\n{prompt}</s>".
        image: how pictures are prepared.
        skip_ca: whether the head has SkipCA.
        eps: of the head's norm.
        tau: temperature of the Bradley-Terry loss it was trained with; sigmoid((r_a - r_b) / tau) is P(a is preferred).
    """

    template: str
    image: ImageSettings
    skip_ca: bool = True
    eps: float = EPS
    tau: float = 0.1


class Checkpoint(NamedTuple):
    """All parts: a LlavaForConditionalGeneration, its tokenizer, `head.SkipCA` or `head.Linear`, and settings."""

    model: Any
    tokenizer: Any
    head: nn.Module
    settings: Settings


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.model.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in checkpoint.head.state_dict().items()}, folder / HEAD_FILE)
    (folder / SETTINGS_FILE).write_text(json.dumps(asdict(checkpoint.settings), indent=2) + "\n")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        CheckpointError: the folder is missing, holds something else, or is damaged.
    """
    settings = read_settings(folder)
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

    try:
        with _silence():
            model = LlavaForConditionalGeneration.from_pretrained(folder, use_safetensors=True, local_files_only=True)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        head = build_head(model.config.get_text_config().hidden_size, settings)
        head.load_state_dict(load_file(folder / HEAD_FILE))
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"The LLaVA-Reward in {folder} is damaged: {error}. Copy or train it again.") from error
    return Checkpoint(model, tokenizer, head, settings)


def build_head(width: int, settings: Settings) -> nn.Module:
    """An untrained head for a language model of this width."""
    return SkipCA(width, settings.eps) if settings.skip_ca else Linear(width)


def read_settings(folder: Path) -> Settings:
    """The settings in `folder`.

    Raises:
        CheckpointError: there are none, or they are not what `Settings` says.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise CheckpointError(
            f"Got checkpoint {str(folder)!r}, where there is no {SETTINGS_FILE}; expected a folder written by "
            "save_checkpoint. Leave `checkpoint` out for the embedded LLaVA-Reward."
        )
    try:
        fields = json.loads(path.read_text())
        image = ImageSettings(**fields.pop("image"))
        return Settings(image=ImageSettings(image.size, tuple(image.mean), tuple(image.std)), **fields)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; expected the fields of Settings.") from error


@contextmanager
def _silence() -> Iterator[None]:
    """No progress bar of transformers for a model that is there in a moment."""
    logging: Any = import_module("transformers.utils.logging")  # without types
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def revision(folder: Path) -> str:
    """Content hash of all weights and settings in `folder`, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    names = ("config.json", "reward.json", "tokenizer.json", "tokenizer_config.json", "*.safetensors")
    for path in sorted(path for name in names for path in folder.glob(name)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]
