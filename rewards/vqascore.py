"""VQAScore: how likely a model that sees and writes answers "Yes" when asked whether the picture shows the prompt.

score = P("Yes"), from 0 to 1; of an answer of several tokens the geometric mean. CLIP-FlanT5's published code counts
the end token as one of them.

References: Lin et al., Evaluating text-to-visual generation with image-to-text generation, ECCV 2024;
github.com/linzhiqiu/t2v_metrics.
"""

from pathlib import Path

import torch
from torch import Tensor

from rewards.clip_t5 import KIND, TOKENIZER, TOWER, load_clip_t5
from rewards.devices import device_of, dtype_of
from rewards.errors import RewardError
from rewards.llava.families import resolve
from rewards.llava.weights import read_json
from rewards.single import Look, SingleReward
from rewards.vlm import VLM_FILES, Vlm, files_of, first_limits, load_vlm

CHECKPOINT = "zhiqiulin/clip-flant5-xxl"
QUESTION = 'Does this figure show "{}"? Please answer Yes or No.'
CLIP_T5_QUESTION = 'Does this figure show "{}"? Please answer yes or no.'
ANSWER = "Yes"


def load_vqascore(
    checkpoint: str | Path = CHECKPOINT,
    *,
    question: str | None = None,
    answer: str = ANSWER,
    tower: str | Path = TOWER,
    tokenizer: str | Path = TOKENIZER,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
) -> SingleReward:
    """VQAScore with CLIP-FlanT5, Qwen2.5-VL, LLaVA, or any model that transformers calls image-text-to-text.

    Args:
        checkpoint: folder or hub name, for example "zhiqiulin/clip-flant5-xl" or "Qwen/Qwen2.5-VL-7B-Instruct".
        question: with {} in the prompt's place; the published one of the model if None.
        answer: whose probability is the score.
        tower: for CLIP-FlanT5, folder or hub name of its CLIP.
        tokenizer: for CLIP-FlanT5, folder or hub name of its T5's tokenizer.
        device: a GPU if None and there is one.
        dtype: "float32", "bfloat16" or "float16"; published scores are in bfloat16.

    Raises:
        RewardError: no such checkpoint, device or dtype, or a question without {}.
    """
    if question is not None and question.count("{}") != 1:
        raise RewardError(f"Got question {question!r}; expected {{}} in it once, where the prompt goes.")
    place, number = device_of(device), dtype_of(dtype)
    folder = resolve(checkpoint, (*VLM_FILES, "*.bin"))
    if read_json(folder / "config.json").get("model_type") == KIND:
        model = load_clip_t5(folder, tower=tower, tokenizer=tokenizer, device=place, dtype=number)
        asked = question or CLIP_T5_QUESTION
        return SingleReward(
            "vqascore",
            lambda look, prompt: model.answer(look, asked.replace("{}", prompt), answer).exp(),
            differentiable=True,
            files=files_of(folder),
            settings=f"{asked} {answer} {number} {tower} {tokenizer}",
        )
    vlm = load_vlm(folder, limits=first_limits, device=place, dtype=number)
    asked = question or QUESTION
    return SingleReward(
        "vqascore",
        lambda look, prompt: answer_probability(vlm, look, asked.replace("{}", prompt), answer),
        differentiable=vlm.differentiable,
        files=files_of(folder),
        settings=f"{asked} {answer} {number}",
    )


def answer_probability(vlm: Vlm, look: Look, question: str, answer: str) -> Tensor:
    """Probability () that the model answers so, the geometric mean over the answer's tokens.

    No penalty or temperature of the model's generation settings is applied: it is the softmax of its logits.
    """
    labels = vlm.encode(answer)
    inputs = vlm.inputs(look, question, labels)
    logits = vlm.model(**inputs, use_cache=False).logits[0, -len(labels) - 1 : -1].float()  # (A, vocabulary)
    wanted = torch.tensor(labels, device=logits.device)[:, None]
    probability: Tensor = logits.log_softmax(-1).gather(1, wanted).mean().exp()
    return probability
