"""From the recipe's modules to folders that the commands read, and from a trained checkpoint to the shipped reward.

    python reward_base.py merge RUN/alignment OUT     # what `train-reward --base RUN/b/base` wrote, its matrices merged
    python reward_base.py adapter RUN/fidelity OUT    # what `train-reward --base embedded` wrote, in safetensors

A base folder is a plain LLaVA as transformers saves it, with its tokenizer and a preprocessor_config.json that says how
pictures and prompts are prepared. The shipped layout has the head and the same settings beside the merged weights
(`rewards.llava.checkpoint`), so that it needs no base model.
"""

import argparse
import json
from pathlib import Path

from reward_model import build_tokenizer
from transformers import LlavaForConditionalGeneration

from rewards.llava.checkpoint import EMBEDDED, Checkpoint, Settings, build_head, save_checkpoint
from rewards.llava.families import EMBEDDED_NAME, load_base
from rewards.llava.images import ImageSettings
from rewards.llava.official import Official, apply, read_official
from rewards.llava.weights import read_json
from rewards.llava.writing import save_official

PICTURES = ImageSettings(64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TEMPLATE = "<s><image>{prompt}</s>"
_HEAD = {"W_q": "q_proj", "W_k": "k_proj", "W_v": "v_proj"}  # published names of SkipCA's parts, and those of ours


def main() -> None:
    """Make a checkpoint ready to be shipped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("merge", "adapter"))
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    if options.command == "merge":
        save_checkpoint(options.out, merged(options.checkpoint))
    else:
        read = read_official(options.checkpoint)
        save_official(options.out, read, base=EMBEDDED, base_name=EMBEDDED_NAME, safetensors=True)


def save_base(folder: Path, model: LlavaForConditionalGeneration) -> None:
    """Write the base folder of a LLaVA that `reward_model.build_llava` built."""
    model.set_attn_implementation("sdpa")
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    settings = {"image_mean": PICTURES.mean, "image_std": PICTURES.std, "template": TEMPLATE}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def merged(folder: Path) -> Checkpoint:
    """A checkpoint of `train-reward` with a Bradley-Terry head, its low-rank matrices added to the base model's."""
    read = read_official(folder)
    base = Path(read_json(folder / "lora/adapter_config.json")["base_model_name_or_path"])
    backbone = load_base(base).backbone
    apply(read, backbone)
    model = LlavaForConditionalGeneration.from_pretrained(base, local_files_only=True)
    state = model.state_dict()
    for name, tensor in backbone.state_dict().items():  # type: ignore[attr-defined]
        state[_stock(name)].copy_(tensor)
    settings = Settings(TEMPLATE, PICTURES, read.settings.add_cross_attention, tau=read.settings.general_preference_tau)
    head = build_head(model.config.text_config.hidden_size, settings)
    head.load_state_dict(_own_names(read))
    return Checkpoint(model, build_tokenizer(), head, settings)


def _stock(name: str) -> str:
    """The name that transformers gives a parameter of our backbone."""
    name = name.replace("vision_tower.vision_model.", "vision_tower.").replace(
        "language_model.model.", "language_model."
    )
    return f"model.{name}"


def _own_names(read: Official) -> dict[str, object]:
    renamed = {}
    for name, tensor in read.head.items():
        first, _, rest = name.partition(".")
        renamed[f"{_HEAD.get(first, first)}.{rest}"] = tensor
    return renamed


if __name__ == "__main__":
    main()
