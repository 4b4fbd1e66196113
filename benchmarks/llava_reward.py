"""What exact shortcuts save: a published-layout Phi checkpoint through `load_reward`, against the straightforward path.

The model is random, of the architecture of Phi-3.5-vision: language model of width 768 and 12 layers, vision tower of
12 layers and a third of that width, as in the release (--vision-width 768 for another split), float32; vocabulary
(32,064 words) and rank of the adapters (128) are the release's. The straightforward path is transformers' own modules
on the same weights, as the published code uses them: one picture and one prompt at a time, crops filled up with zeros
to --num-crops, all layers of the tower, adapters as side branches, all positions of all layers with hidden states,
cache and logits kept, SkipCA for every position, each perspective from scratch. Both must agree. Ours are the
library's defaults.

Pictures are of four shapes; with the default --num-crops 1 each is two crops and 313 visual tokens. Both paths run in
processes of their own, which take turns, --repeats times each, so that what else the machine does hits both. Time is
the median; memory the most above the loaded weights, all that was free having been given back before.

    python benchmarks/llava_reward.py [--num-crops 1] [--repeats 2] [--threads 2] [--batch-size 16]
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from measure import Clock, Peak, Worker, answer, trim, where

TINY = Path(__file__).parents[1] / "tests/rewards/llava/goldens/phi3v/base"  # tokenizer of 640 words, config
WIDTH, LAYERS, RANK, VOCABULARY = 768, 12, 128, 32064
TOWER = "model.vision_embed_tokens.img_processor.vision_model."
NAMES = ("alignment", "fidelity", "safety", "overall")
SCENARIOS = {  # pictures, perspectives, prompts; aim for time
    "16 pictures x 1 prompt": (16, 1, 1, 0.8),
    "4 pictures x 4 perspectives": (4, 4, 1, 0.7),
    "1 picture x 16 prompts": (1, 1, 16, 0.15),
}
HEAD = ("ours / straightforward", "seconds", "ratio", "aim", "MiB above weights", "ratio", "aim", "largest difference")
WIDTHS = (27, 13, 5, 4, 17, 5, 4, 0)
MEMORY_AIM, AGREEMENT = 0.6, 1e-3


def main() -> None:
    """Print the table row by row, or as a worker one path's figures of one scenario."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-crops", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vision-width", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=0, help="of ours (default: the library's)")
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    parser.add_argument("--path", default="", help=argparse.SUPPRESS)
    parser.add_argument("--scenario", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.path:
        work(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), arguments.vision_width)
        options = {name: value for name, value in vars(arguments).items() if name not in ("folder", "path", "scenario")}
        print(line(HEAD))
        for scenario in SCENARIOS:
            print(line(row(scenario, folder, options)), flush=True)
    print(f"\n{arguments.num_crops} crops at most, median of {arguments.repeats}\n{where(arguments.threads)}")


def line(cells: Sequence[str]) -> str:
    """One line of the table."""
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True))


def row(scenario: str, folder: str, options: dict[str, Any]) -> list[str]:
    """Both paths of one scenario in turns; they must agree."""
    workers = {path: Worker(__file__, folder=folder, path=path, scenario=scenario, **options) for path in PATHS}
    found: dict[str, list[dict[str, Any]]] = {path: [] for path in PATHS}
    for _ in range(options["repeats"]):
        for path, worker in workers.items():
            found[path].append(worker.measure())
    for worker in workers.values():
        worker.close()
    naive, ours = (found[path][0]["scores"] for path in PATHS)
    difference = max(abs(a - b) for a, b in zip(naive, ours, strict=True))
    if len(set(ours)) < len(ours) or difference > AGREEMENT:
        raise SystemExit(f"{scenario}: scores differ by {difference:.2g}, or are not all distinct: {ours}")
    seconds = [median(one["seconds"] for one in found[path]) for path in ("ours", "naive")]
    memory = [max(one["mib"] for one in found[path]) for path in ("ours", "naive")]
    return [
        scenario, f"{seconds[0]:.2f} / {seconds[1]:.2f}", f"{seconds[0] / seconds[1]:.2f}",
        f"{SCENARIOS[scenario][3]:.2f}", f"{memory[0]:.0f} / {memory[1]:.0f}", f"{memory[0] / memory[1]:.2f}",
        f"{MEMORY_AIM:.2f}", f"{difference:.1e}",
    ]  # fmt: skip


def work(arguments: argparse.Namespace) -> None:
    """Give time, peak memory and scores of one path whenever asked."""
    pictures, perspectives, prompts, _ = SCENARIOS[arguments.scenario]
    images = make_pictures(pictures) * prompts
    texts = [f"a red circle number {number} left of a blue square" for number in range(prompts)] * pictures
    score = PATHS[arguments.path](
        Path(arguments.folder), NAMES[:perspectives], arguments.num_crops, arguments.batch_size or None
    )
    score(images[:2], texts[:2])  # what only the first call does

    def measure() -> dict[str, Any]:
        trim()
        with Peak() as peak, Clock() as clock:
            scores = score(images, texts)
        return {"seconds": clock.wall, "mib": peak.mib, "scores": scores}

    answer(measure)


def make_pictures(count: int) -> list[Any]:
    """Noise over a ramp, each its own; in turn square, wide, high and very wide."""
    import numpy as np
    from PIL import Image

    sizes = [(512, 512), (640, 448), (448, 640), (896, 384)]
    generator = np.random.default_rng(0)
    pictures = []
    for number in range(count):
        width, height = sizes[number % len(sizes)]
        ramp = np.linspace(0, 160, width)[None, :, None] * generator.random(3)
        pictures.append(Image.fromarray((ramp + 90 * generator.random((height, width, 3))).astype(np.uint8)))
    return pictures


Score = Callable[[list[Any], list[str]], list[float]]


def load_ours(folder: Path, names: tuple[str, ...], num_crops: int, batch_size: int | None) -> Score:
    """The public calls."""
    from rewards import load_reward
    from rewards.llava.reward import LlavaReward

    if len(names) > 1:
        several = LlavaReward.perspectives(
            {name: folder / name for name in names}, base=folder / "base", num_crops=num_crops, batch_size=batch_size
        )
        view: Any = several.rewards[names[0]].scorer.backbone
        resident(view._shared.backbone)
        return lambda images, texts: [score for column in several(images, texts).values() for score in column.tolist()]
    reward: Any = load_reward(
        "llava-reward",
        checkpoint=folder / names[0],
        base=folder / "base",
        num_crops=num_crops,
        device="cpu",
        batch_size=batch_size,
    )
    resident(reward.scorer.backbone)
    return lambda images, texts: reward(images, texts).tolist()


def load_naive(folder: Path, names: tuple[str, ...], num_crops: int, batch_size: int | None) -> Score:
    """One whole model for each perspective, run for one picture and one prompt at a time."""
    models = [Naive(folder, name, num_crops) for name in names]
    return lambda images, texts: [
        model(image, text) for model in models for image, text in zip(images, texts, strict=True)
    ]


class Naive:
    """The straightforward path over transformers' own CLIP and Phi-3; preprocessing and merge of crops are ours."""

    def __init__(self, folder: Path, name: str, num_crops: int) -> None:
        from safetensors.torch import load_file
        from transformers import CLIPVisionModel, Phi3ForCausalLM

        from rewards.llava.families import load_base
        from rewards.llava.official import apply, read_official

        checkpoint = read_official(folder / name)
        self.base, self.num_crops, self.head = (
            load_base(folder / "base", num_crops=num_crops),
            num_crops,
            checkpoint.head,
        )
        apply(checkpoint, self.base.backbone)
        config = json.loads((folder / "base/config.json").read_text())
        self.tower = CLIPVisionModel(clip_config(config["img_processor"]["vision_config"]["hidden_size"]))
        stored = load_file(folder / "base/model.safetensors")
        tower = {key.removeprefix(TOWER): value for key, value in stored.items() if key.startswith(TOWER)}
        getattr(self.tower, "vision_model", self.tower).load_state_dict(tower)
        self.phi = Phi3ForCausalLM(phi_config())
        self.phi.load_state_dict({key: stored[key] for key in self.phi.state_dict()}, assign=True)
        for name, (down, up) in checkpoint.lora.items():
            add_side_branch(self.phi.get_submodule(name), down, up, checkpoint.scale)
        resident(self.base.backbone, self.tower, self.phi)  # nothing in them depends on training mode

    def __call__(self, image: Any, text: str) -> float:  # noqa: ANN401  of Pillow
        """One score."""
        import torch

        with torch.no_grad():
            picture = self.base.inputs.picture(image)
            empty = torch.zeros(self.num_crops + 1 - len(picture.pixels), *picture.pixels.shape[1:])
            seen = self.tower(torch.cat([picture.pixels, empty]), output_hidden_states=True).hidden_states[-2][:, 1:]
            (visual,) = self.base.backbone.project([seen[: len(picture.pixels)]], [picture])  # (V, H)
            ids = torch.tensor(self.base.inputs.ids(text, picture))
            embedded = self.phi.get_input_embeddings()(ids.clamp(min=0))
            embedded[ids < 0] = visual
            output = self.phi(inputs_embeds=embedded[None], output_hidden_states=True, use_cache=True)
            return self.rewarded(output.hidden_states[-1][0], visual)[-1].item()  # type: ignore[no-any-return]

    def rewarded(self, states: Any, visual: Any) -> Any:  # noqa: ANN401  tensors, of a lazily imported library
        """Head outputs (L, 1) of all positions."""
        head = self.head
        query, key, value = (
            x @ head[f"W_{name}.weight"].T for x, name in zip((states, visual, visual), "qkv", strict=True)
        )
        refined = states + (query @ key.T / WIDTH**0.5).softmax(-1) @ value
        normed = refined * (refined.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * head["ca_layernorm.weight"]
        return normed @ head["value_head.weight"].T


def add_side_branch(linear: Any, down: Any, up: Any, scale: float) -> None:  # noqa: ANN401  torch, imported lazily
    """What peft adds to a linear layer: scale · up · down · input."""
    linear.register_forward_hook(lambda module, inputs, output: output + scale * (inputs[0] @ down.T) @ up.T)


PATHS: dict[str, Callable[[Path, tuple[str, ...], int, int | None], Score]] = {"naive": load_naive, "ours": load_ours}


def build(folder: Path, vision: int) -> None:
    """Write a base model into folder/base, and a checkpoint for each perspective beside it."""
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPVisionModel, Phi3ForCausalLM

    shutil.copytree(TINY, folder / "base")
    config = json.loads((TINY / "config.json").read_text())
    config.update(phi_config().to_diff_dict() | {"model_type": "phi3_v", "rope_scaling": None})
    config.update(rope_theta=10000.0, original_max_position_embeddings=4096, max_position_embeddings=4096)
    config |= {"num_attention_heads": 12, "num_key_value_heads": 12, "rms_norm_eps": 1e-5, "hidden_act": "silu"}
    config["img_processor"] |= {"image_dim_out": vision, "vision_config": clip_config(vision).to_dict()}
    (folder / "base/config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    tower = CLIPVisionModel(clip_config(vision))
    state = dict(Phi3ForCausalLM(phi_config()).state_dict())
    state |= {TOWER + key: value for key, value in getattr(tower, "vision_model", tower).state_dict().items()}
    see = "model.vision_embed_tokens."
    state |= {f"{see}glb_GN": torch.randn(1, 1, 4 * vision), f"{see}sub_GN": torch.randn(1, 1, 1, 4 * vision)}
    state |= projector(4 * vision)
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "base/model.safetensors")
    for name in NAMES:
        write_checkpoint(folder, name, state, projector(4 * vision))


def write_checkpoint(folder: Path, name: str, state: dict[str, Any], projected: dict[str, Any]) -> None:
    """Low-rank matrices on all of the language model's linear layers, projector, and a SkipCA head."""
    import torch

    from rewards.llava.families import PHI
    from rewards.llava.official import Official, RewardConfig
    from rewards.llava.writing import save_official

    targets = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    adapted = [key for key in state if key.split(".")[-2] in targets]
    lora = {}
    for key in adapted:
        high, wide = state[key].shape
        pair = torch.randn(RANK, wide) / wide**0.5, torch.randn(high, RANK) / 40
        lora[key.removesuffix(".weight")] = pair
    head = {f"W_{part}.weight": torch.randn(WIDTH, WIDTH) / WIDTH**0.5 for part in "qkv"}
    head |= {"ca_layernorm.weight": 1 + torch.randn(WIDTH) / 10, "value_head.weight": torch.randn(1, WIDTH) / 10}
    settings = RewardConfig(add_cross_attention=True)
    checkpoint = Official(folder / name, PHI, settings, head, projected, lora, 2.0, targets)
    save_official(folder / name, checkpoint, base=folder / "base")


def projector(cell: int) -> dict[str, Any]:
    """Parameters of a random projector."""
    import torch

    see = "model.vision_embed_tokens.img_projection."
    shapes = {"0.weight": (WIDTH, cell), "0.bias": (WIDTH,), "2.weight": (WIDTH, WIDTH), "2.bias": (WIDTH,)}
    return {see + key: torch.randn(shape) / shape[-1] ** 0.5 for key, shape in shapes.items()}


def phi_config() -> Any:  # noqa: ANN401  of transformers, which has no types
    """The language model's."""
    from transformers import Phi3Config

    return Phi3Config(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=8 * WIDTH // 3, num_hidden_layers=LAYERS,
        num_attention_heads=12, num_key_value_heads=12, max_position_embeddings=4096, pad_token_id=None,
        original_max_position_embeddings=4096, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def clip_config(width: int) -> Any:  # noqa: ANN401  of transformers, which has no types
    """The vision tower's."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=LAYERS, num_attention_heads=width // 64,
        image_size=336, patch_size=14, hidden_act="quick_gelu",
    )  # fmt: skip


def resident(*modules: Any) -> None:
    """Touch every weight, so that none is read from disk later and counted as memory of the scoring."""
    for module in modules:
        for parameter in module.parameters():
            parameter.requires_grad_(False).sum()


if __name__ == "__main__":
    main()
