"""What a checkpoint is, told from its files without loading its base model."""

from dataclasses import dataclass
from pathlib import Path

from rewards.llava.checkpoint import EMBEDDED, SETTINGS_FILE, read_settings
from rewards.llava.hub import REPOSITORY, locate
from rewards.llava.official import Official, read_official, still_initial
from rewards.llava.weights import read_json


@dataclass(frozen=True)
class Description:
    """A checkpoint in words.

    Attributes:
        folder: where it lies.
        layout: "published, LoRA", "published, full fine-tune" or "embedded".
        backbone: "phi3v", "qwen", "llava_next" or "llava".
        base: what the adapter calls its base model; empty if it does not say.
        head: kind and size.
        absolute: whether scores can be compared beyond one set of candidates.
        skipca: whether the head looks back at the picture.
        tau: temperature of preferences.
        lora: what was adapted, in words; empty for none.
        untouched: parts whose values are those that training starts from, as far as the files alone tell.
    """

    folder: Path
    layout: str
    backbone: str
    base: str
    head: str
    absolute: bool
    skipca: bool
    tau: float
    lora: str = ""
    untouched: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for each fact."""
        facts = {
            "checkpoint": str(self.folder),
            "layout": self.layout,
            "backbone": self.backbone,
            "base model": self.base or "not said",
            "head": self.head,
            "scores": "absolute" if self.absolute else "none; ranks the candidates of one prompt",
            "SkipCA": "yes" if self.skipca else "no",
            "tau": f"{self.tau:g}",
            "LoRA": self.lora or "none",
            "initial values": ", ".join(self.untouched) or "none found",
        }
        return "\n".join(f"{name + ':':<16}{fact}" for name, fact in facts.items())


def describe(checkpoint: str | Path, repository: str | Path = REPOSITORY) -> Description:
    """What a checkpoint is, in the published or the embedded layout.

    Args:
        checkpoint: "llava-reward" for the embedded one, or what `hub.locate` takes.
        repository: where "llava-reward:alignment" is looked up; as for `hub.find_checkpoint`.

    Raises:
        CheckpointError: there is none, or it is damaged or incomplete.
    """
    folder = EMBEDDED if str(checkpoint) == "llava-reward" else locate(checkpoint, repository)
    if (folder / SETTINGS_FILE).is_file():
        settings = read_settings(folder)
        head = "Bradley-Terry, 1 output"
        return Description(folder, "embedded", "llava", str(folder), head, True, settings.skip_ca, settings.tau)
    return _published(read_official(folder))


def _published(read: Official) -> Description:
    settings = read.settings
    return Description(
        folder=read.folder,
        layout="published, full fine-tune" if read.full else "published, LoRA",
        backbone=read.family.name,
        base=str(read.folder if read.full else _adapter(read).get("base_model_name_or_path") or ""),
        head=_head(read),
        absolute=read.head["value_head.weight"].shape[0] == 1,
        skipca=settings.add_cross_attention,
        tau=settings.general_preference_tau,
        lora=_lora(read),
        untouched=tuple(still_initial(read)),
    )


def _head(read: Official) -> str:
    outputs, width = read.head["value_head.weight"].shape
    if outputs > 1:
        return f"general preference, {outputs} outputs from {width}"
    return f"Bradley-Terry or classification (the files do not say which), 1 output from {width}"


def _lora(read: Official) -> str:
    if not read.lora:
        return ""
    rank = len(next(iter(read.lora.values()))[0])
    return f"rank {rank}, scale {read.scale:g}, {len(read.lora)} matrices, {len(read.projector)} projector tensors"


def _adapter(read: Official) -> dict[str, object]:
    return read_json(read.folder / "lora/adapter_config.json")
