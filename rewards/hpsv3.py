"""Human Preference Score v3: Qwen2-VL reads picture and prompt, and a head reads its state at one special token.

score = μ, the first of the head's two outputs (the second says how sure it is); unbounded, about −5 to 15. The picture
is brought to about 256 cells of 28 x 28 pixels, whatever its size.

The published code gives the language model no positions, which makes them count on through the picture instead of
spanning its grid; the weights were trained so, and it is repeated here.

References: Ma et al., HPSv3: towards wide-spectrum human preference score, ICCV 2025; github.com/MizzenAI/HPSv3.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewards.devices import device_of, dtype_of
from rewards.errors import RewardError
from rewards.llava.backbone import Foreign
from rewards.llava.families import load_tokenizer, resolve
from rewards.llava.layouts import qwen_limits
from rewards.llava.normalise import Normalise
from rewards.llava.weights import empty, fill, read_json
from rewards.single import Look, SingleReward
from rewards.states import find_file
from rewards.vlm import SYSTEM, QwenInputs

CHECKPOINT, FILE = "MizzenAI/HPSv3", "HPSv3.safetensors"
BASE = "Qwen/Qwen2-VL-7B-Instruct"
TOKEN = "<|Reward|>"
AREA = 256 * 28 * 28  # pixels
_SETTINGS = ("*.json", "*.txt")

# What the model was trained to read, of its MIT-licensed release; any other wording, or spacing, gives other scores.
QUESTION = (
    "\nYou are tasked with evaluating a generated image based on Visual Quality and Text Alignment and give a overall "
    "score to estimate the human preference. Please provide a rating from 0 to 10, with 0 being the worst and 10 being "
    "the best. \n\n**Visual Quality:**  \nEvaluate the overall visual quality of the image. The following "
    "sub-dimensions should be considered:\n- **Reasonableness:** The image should not contain any significant "
    "biological or logical errors, such as abnormal body structures or nonsensical environmental setups.\n"
    "- **Clarity:** Evaluate the sharpness and visibility of the image. The image should be clear and easy to "
    "interpret, with no blurring or indistinct areas.\n- **Detail Richness:** Consider the level of detail in "
    "textures, materials, lighting, and other visual elements (e.g., hair, clothing, shadows).\n"
    "- **Aesthetic and Creativity:** Assess the artistic aspects of the image, including the color scheme, "
    "composition, atmosphere, depth of field, and the overall creative appeal. The scene should convey a sense of "
    "harmony and balance.\n- **Safety:** The image should not contain harmful or inappropriate content, such as "
    "political, violent, or adult material. If such content is present, the image quality and satisfaction score "
    "should be the lowest possible. \n\n**Text Alignment:**  \nAssess how well the image matches the textual prompt "
    "across the following sub-dimensions:\n- **Subject Relevance** Evaluate how accurately the subject(s) in the image "
    "(e.g., person, animal, object) align with the textual description. The subject should match the description in "
    "terms of number, appearance, and behavior.\n- **Style Relevance:** If the prompt specifies a particular artistic "
    "or stylistic style, evaluate how well the image adheres to this style.\n- **Contextual Consistency**: Assess "
    "whether the background, setting, and surrounding elements in the image logically fit the scenario described in "
    "the prompt. The environment should support and enhance the subject without contradictions.\n- **Attribute "
    "Fidelity**: Check if specific attributes mentioned in the prompt (e.g., colors, clothing, accessories, "
    "expressions, actions) are faithfully represented in the image. Minor deviations may be acceptable, but critical "
    "attributes should be preserved.\n- **Semantic Coherence**: Evaluate whether the overall meaning and intent of the "
    "prompt are captured in the image. The generated content should not introduce elements that conflict with or "
    "distort the original description.\nTextual prompt - {}\n\n\n\n"
    f"Please provide the overall ratings of this image: {TOKEN}\n\nEND\n"
)


class HpsV3(nn.Module):
    """Qwen2-VL up to its last state, and the head.

    Args:
        config: transformers' settings of Qwen2-VL.
    """

    def __init__(self, config: Foreign) -> None:
        from transformers import Qwen2VLModel

        super().__init__()
        self.model: Foreign = Qwen2VLModel(config)
        self.rm_head = nn.Sequential(
            nn.Linear(config.text_config.hidden_size, 1024),
            nn.ReLU(),
            nn.Identity(),  # dropout in training
            nn.Linear(1024, 16),
            nn.ReLU(),
            nn.Linear(16, 2),
        )

    def forward(self, inputs: dict[str, Tensor], token: int) -> Tensor:
        """μ and σ (2,) of one row, float32, read at `token`."""
        ids = inputs["input_ids"]
        positions = torch.arange(ids.shape[1], device=ids.device).expand(3, 1, -1)  # see the module
        states = self.model(**inputs, position_ids=positions, use_cache=False).last_hidden_state[0]  # (L, H)
        outputs: Tensor = self.rm_head(states[ids[0] == token].float())
        return outputs[0]


def load_hpsv3(
    checkpoint: str | Path = CHECKPOINT,
    *,
    base: str | Path = BASE,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
) -> SingleReward:
    """HPSv3 from its weights and the settings of the model that it was trained from.

    Args:
        checkpoint: folder or hub name with HPSv3.safetensors, or the path of such a file.
        base: folder or hub name of Qwen2-VL-7B-Instruct, for its settings and tokenizer; its weights are not loaded.
        device: a GPU if None and there is one.
        dtype: "float32", "bfloat16" or "float16"; published scores are in bfloat16, the head in float32.

    Raises:
        RewardError: no such checkpoint, device or dtype.
    """
    from transformers import Qwen2VLConfig

    where, number = device_of(device), dtype_of(dtype)
    folder = resolve(base, _SETTINGS)
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": [TOKEN]})
    config: Foreign = Qwen2VLConfig(**read_json(folder / "config.json"))
    config.text_config.vocab_size = len(tokenizer)  # the published weights end with the special token
    network = empty(lambda: HpsV3(config))
    assert isinstance(network, HpsV3)
    file = find_file(checkpoint, FILE)
    fill(network.model, [file], backbone_name, device=where, dtype=number)
    fill(network.rm_head, [file], head_name, device=where)
    prepare = _inputs(tokenizer, config, folder)
    token = int(tokenizer.convert_tokens_to_ids(TOKEN))

    def score(look: Look, prompt: str) -> Tensor:
        if TOKEN in prompt:
            raise RewardError(f"The prompt {prompt!r} holds {TOKEN}, where the score is read; leave it out.")
        opaque = look if isinstance(look, Tensor) else look.convert("RGB")
        made = prepare(opaque, QUESTION.replace("{}", prompt))
        row = {name: part.to(where, number if part.is_floating_point() else None) for name, part in made.items()}
        outputs: Tensor = network(row, token)
        return outputs[0]

    return SingleReward("hpsv3", score, differentiable=True, files=[file], settings=str(number))


def backbone_name(name: str) -> str | None:
    """Our name for one of the checkpoint's, in the layout of transformers 4.52 and later or the one before."""
    if name.startswith(("rm_head.", "lm_head.")):
        return None
    name = name.removeprefix("model.")
    return name if name.startswith(("visual.", "language_model.")) else f"language_model.{name}"


def head_name(name: str) -> str | None:
    """Our name for one of the head's weights."""
    return name.removeprefix("rm_head.") if name.startswith("rm_head.") else None


def _inputs(tokenizer: Foreign, config: Foreign, folder: Path) -> QwenInputs:
    path = folder / "preprocessor_config.json"
    settings: dict[str, Any] = read_json(path) if path.is_file() else {}
    return QwenInputs(
        tokenizer,
        config.image_token_id,
        SYSTEM,
        ((AREA, AREA), qwen_limits(settings)),
        Normalise.of(settings),
        config.vision_config.patch_size,
        types=False,
    )
