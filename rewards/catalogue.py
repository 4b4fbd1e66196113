"""What is known of each reward: what it measures, its range, licence and size, and how it was checked.

`score-images --list-rewards` prints this table. "Checked" says what our code was compared with; no reward was run here
with its full published weights unless it says so.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One reward.

    Attributes:
        measures: what a high score means, in a few words.
        range: of its scores; "about" where it is what people have seen rather than a bound.
        licence: of code and weights, as far as it is known.
        size: of what is downloaded, or its number of parameters.
        differentiable: whether scores of a tensor carry its gradient.
        checked: what its numbers were compared with.
        references: papers and places.
        prompt: False if it looks at the picture alone.
        tokens: a longer prompt is cut after so many tokens, begin and end included; None if it is read whole.
    """

    measures: str
    range: str
    licence: str
    size: str
    differentiable: bool
    checked: str
    references: tuple[str, ...]
    prompt: bool = True
    tokens: int | None = None


_TINY = "the original code on tiny random weights, 1e-4; its preprocessing, byte for byte; "

CATALOGUE: dict[str, Entry] = {
    "aesthetic": Entry(
        "how much people like a picture",
        "1 to 10",
        "code Apache-2.0, weights unstated",
        "305 M parameters",
        differentiable=True,
        checked=_TINY + "names and shapes of the full-size head",
        references=("github.com/christophschuhmann/improved-aesthetic-predictor",),
        prompt=False,
    ),
    "clipscore": Entry(
        "picture and prompt mean the same",
        "about 0.15 to 0.40",
        "code MIT, weights unstated",
        "428 M parameters",
        differentiable=True,
        checked=_TINY + "its tokens",
        references=("Hessel et al., CLIPScore, EMNLP 2021", "hf.co/openai/clip-vit-large-patch14"),
        tokens=77,
    ),
    "geneval": Entry(
        "objects, numbers, colours and places of the prompt; not the official GenEval",
        "0 to 1",
        "Apache-2.0",
        "155 M parameters",
        differentiable=False,
        checked="rules by hand and drawn scenes; a tiny random OWLv2 against transformers, 1e-4",
        references=("Ghosh et al., GenEval, NeurIPS 2023", "hf.co/google/owlv2-base-patch16-ensemble"),
    ),
    "hpsv2": Entry(
        "people prefer the picture",
        "about 0.20 to 0.35",
        "Apache-2.0",
        "986 M parameters",
        differentiable=True,
        checked="the original code on tiny random weights, 1e-4; its preprocessing, 2e-6; its tokens; names and shapes "
        "of the full-size checkpoint",
        references=("Wu et al., Human preference score v2, 2023", "hf.co/xswu/HPSv2"),
        tokens=77,
    ),
    "hpsv3": Entry(
        "people prefer the picture",
        "unbounded, about −5 to 15",
        "MIT",
        "16 GB",
        differentiable=True,
        checked="the original code on tiny random weights, 1e-4; shapes of the full-size checkpoint as documented",
        references=("Ma et al., HPSv3, ICCV 2025", "hf.co/MizzenAI/HPSv3"),
    ),
    "imagereward": Entry(
        "people prefer the picture",
        "about −2.3 to 2.25",
        "Apache-2.0",
        "447 M parameters",
        differentiable=True,
        checked=_TINY + "its tokens; names and shapes of the full-size checkpoint",
        references=("Xu et al., ImageReward, NeurIPS 2023", "hf.co/THUDM/ImageReward"),
        tokens=35,
    ),
    "jpeg": Entry(
        "a small or large JPEG file, in kilobytes",
        "compressibility below 0, incompressibility above",
        "Apache-2.0",
        "nothing",
        differentiable=False,
        checked="files written by PIL",
        references=("Black et al., Training diffusion models with reinforcement learning, ICLR 2024",),
        prompt=False,
    ),
    "judge": Entry(
        "what a model behind an OpenAI-compatible endpoint says",
        "0 to 10; judge:pairwise 0 to 1, relative",
        "that of the service",
        "nothing",
        differentiable=False,
        checked="a local server that fails in every way; no real service",
        references=("Zheng et al., Judging LLM-as-a-judge, NeurIPS 2023",),
    ),
    "llava-reward": Entry(
        "alignment, fidelity, safety or all of them",
        "unbounded; general-preference heads 0 to 1, relative",
        "unstated; the embedded model Apache-2.0",
        "embedded, or that of its base model",
        differentiable=True,
        checked="recorded numbers of the official code on tiny models of every family; the embedded model as a whole",
        references=(
            "Multimodal LLMs as customized reward models for text-to-image generation, ICCV 2025, arXiv:2507.21391",
            "hf.co/smz8599/LLaVA-Reward",
        ),
    ),
    "mps": Entry(
        "people prefer the picture",
        "about 0 to 20",
        "code MIT, weights unstated",
        "1.1 G parameters",
        differentiable=True,
        checked="the original code on tiny random weights, one prompt at a time, 1e-4; names and shapes of what joins "
        "the towers at full size",
        references=("Zhang et al., Learning multi-dimensional human preference, CVPR 2024", "hf.co/RE-N-Y/mpsv1"),
        tokens=77,
    ),
    "nsfw": Entry(
        "the picture is unsafe (for constraints: high is bad)",
        "0 to 1",
        "Apache-2.0",
        "86 M parameters",
        differentiable=False,
        checked="transformers on tiny random weights",
        references=("hf.co/Falconsai/nsfw_image_detection",),
        prompt=False,
    ),
    "ocr": Entry(
        "the prompt's quoted text stands in the picture",
        "0 to 1",
        "Apache-2.0",
        "32 MB, in the extra [ocr]",
        differentiable=False,
        checked="its published weights: 25 words above their misspellings on 50 pictures",
        references=("Liu et al., Flow-GRPO, arXiv:2505.05470",),
    ),
    "pickscore": Entry(
        "people prefer the picture",
        "about 17 to 24",
        "MIT",
        "986 M parameters",
        differentiable=True,
        checked="its README's calculation on tiny random weights, 1e-4; its preprocessing, byte for byte",
        references=("Kirstain et al., Pick-a-Pic, NeurIPS 2023", "hf.co/yuvalkirstain/PickScore_v1"),
        tokens=77,
    ),
    "pixels": Entry(
        "brightness, colorfulness or sharpness",
        "0 to 1, 0 upwards, or 0 to 2",
        "Apache-2.0",
        "nothing",
        differentiable=True,
        checked="numbers done by hand",
        references=("Hasler and Süsstrunk, Measuring colourfulness in natural images, 2003",),
        prompt=False,
    ),
    "shapes": Entry(
        "the picture shows what a sentence of the shapes world says",
        "0 to 2, a pass is 1 or more",
        "Apache-2.0",
        "nothing",
        differentiable=False,
        checked="rendered scenes of known content",
        references=(),
    ),
    "unifiedreward": Entry(
        "alignment and quality, as a model judges them in words",
        "1 to 5.99",
        "code MIT, weights unstated",
        "8.3 G parameters",
        differentiable=False,
        checked="what the original script generates with tiny random weights; reading of numbers by hand",
        references=("Wang et al., Unified reward model, 2025", "hf.co/CodeGoat24/UnifiedReward-qwen-7b"),
    ),
    "vqascore": Entry(
        "a model that sees answers that the picture shows the prompt",
        "0 to 1",
        "Apache-2.0; of other models their own",
        "22.4 GB; clip-flant5-xl 6.9 GB",
        differentiable=True,
        checked="the original code with CLIP-FlanT5 and Qwen2.5-VL on tiny random weights, 1e-4 relative; LLaVA "
        "against transformers; models other than the first two have no gradients",
        references=("Lin et al., Evaluating text-to-visual generation, ECCV 2024", "hf.co/zhiqiulin/clip-flant5-xxl"),
    ),
}


def listing() -> str:
    """The whole table for people: a few lines for each reward, and where those of installed packages come from."""
    from rewards.registry import plug_ins

    own = [_described(name, entry) for name, entry in CATALOGUE.items()]
    return "\n\n".join(own + [f"{name}\n    of an installed package: {target}" for name, target in plug_ins().items()])


def _described(name: str, entry: Entry) -> str:
    cut = "" if entry.tokens is None else f", cut after {entry.tokens} tokens"
    reads = f"picture and prompt{cut}" if entry.prompt else "picture alone"
    lines = [
        f"{entry.measures}; {entry.range}",
        f"reads {reads}; gradients: {'yes' if entry.differentiable else 'no'}; licence: {entry.licence}; "
        f"size: {entry.size}",
        f"checked: {entry.checked}",
    ]
    return "\n    ".join([name, *lines, *([f"see {', '.join(entry.references)}"] if entry.references else [])])
