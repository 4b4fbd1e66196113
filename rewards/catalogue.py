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
    "llava-reward": Entry(
        "alignment, fidelity, safety or all of them",
        "unbounded; general-preference heads 0 to 1, relative",
        "unstated; the embedded model Apache-2.0",
        "embedded, or that of its base model",
        differentiable=True,
        checked="recorded numbers of the official code on tiny models of every family; the embedded model, which alone "
        "has gradients, as a whole",
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
