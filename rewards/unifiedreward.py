"""UnifiedReward: a model that writes its judgement of a picture, read as an expected value instead of as a digit.

The model writes on without chance until its label for a score ("Final Score:", or one for each of alignment,
coherence and style); there the score is Σ d p(d) / Σ p(d) over the digits 1 to 5, and a decimal that it writes behind
is read likewise. So pictures that would get the same digit are told apart. A label that it does not write is written
for it. Scores lie between 1 and 5.99; those of "acs" are the mean of the three.

References: Wang et al., Unified reward model for multimodal understanding and generation, 2025;
github.com/CodeGoat24/UnifiedReward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rewards.devices import device_of, dtype_of
from rewards.errors import RewardError
from rewards.llava.families import resolve
from rewards.nearest import check_variant
from rewards.single import Look, SingleReward
from rewards.vlm import VLM_FILES, Vlm, both_limits, files_of, load_vlm

CHECKPOINT = "CodeGoat24/UnifiedReward-qwen-7b"
DECIMALS = 2


@dataclass(frozen=True)
class Form:
    """What the model is asked, and where its answer says a number.

    Attributes:
        question: with {} in the prompt's place; the words that the model was trained with, of its MIT-licensed release.
        labels: what stands before each number.
    """

    question: str
    labels: tuple[str, ...]


FORMS = {
    "score": Form(
        "You are given a text caption and a generated image based on that caption. Your task is to evaluate this image "
        "based on two key criteria:\n1. Alignment with the Caption: Assess how well this image aligns with the "
        "provided caption. Consider the accuracy of depicted objects, their relationships, and attributes as described "
        "in the caption.\n2. Overall Image Quality: Examine the visual quality of this image, including clarity, "
        "detail preservation, color accuracy, and overall aesthetic appeal.\nExtract key elements from the provided "
        "text caption, evaluate their presence in the generated image using the format: 'element (type): value' "
        "(where value=0 means not generated, and value=1 means generated), and assign a score from 1 to 5 after "
        "'Final Score:'.\nYour task is provided as follows:\nText Caption: [{}]",
        ("Final Score:",),
    ),
    "acs": Form(
        "You are presented with a generated image and its associated text caption. Your task is to analyze the image "
        "across multiple dimensions in relation to the caption. Specifically:\nProvide overall assessments for the "
        "image along the following axes (each rated from 1 to 5):\n- Alignment Score: How well the image matches the "
        "caption in terms of content.\n- Coherence Score: How logically consistent the image is (absence of visual "
        "glitches, object distortions, etc.).\n- Style Score: How aesthetically appealing the image looks, regardless "
        "of caption accuracy.\n\nOutput your evaluation using the format below:\n\nAlignment Score (1-5): X\n"
        "Coherence Score (1-5): Y\nStyle Score (1-5): Z\n\nYour task is provided as follows:\nText Caption: [{}]",
        ("Alignment Score (1-5):", "Coherence Score (1-5):", "Style Score (1-5):"),
    ),
}


@dataclass(frozen=True)
class Written:
    """What a model wrote.

    Attributes:
        ids: (T,) token numbers.
        logits: (T, vocabulary) from which each was chosen.
        text: of each token, so that they join to the whole.
    """

    ids: Tensor
    logits: Tensor
    text: tuple[str, ...]


def load_unifiedreward(
    checkpoint: str | Path = CHECKPOINT,
    *,
    tokens: int = 512,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    variant: str = "score",
) -> SingleReward:
    """UnifiedReward on Qwen2.5-VL or Qwen3-VL; "unifiedreward:acs" asks for three scores, as version 2.0 does.

    Args:
        checkpoint: folder or hub name.
        tokens: written at most, before a label that is missing is written for the model.
        device: a GPU if None and there is one.
        dtype: "float32", "bfloat16" or "float16"; published scores are in bfloat16.
        variant: "score" or "acs".

    Raises:
        RewardError: no such variant, checkpoint, device or dtype.
    """
    check_variant("unifiedreward", variant, tuple(FORMS))
    if tokens < 1:
        raise RewardError(f"Got tokens {tokens}; expected at least 1.")
    folder, number = resolve(checkpoint, VLM_FILES), dtype_of(dtype)
    vlm = load_vlm(folder, limits=both_limits, device=device_of(device), dtype=number)
    form = FORMS[variant]
    return SingleReward(
        "unifiedreward",
        lambda look, prompt: judged(vlm, look, form, prompt, tokens),
        differentiable=False,
        files=files_of(folder),
        settings=f"{variant} {tokens} {number}",
    )


@torch.no_grad()
def judged(vlm: Vlm, look: Look, form: Form, prompt: str, tokens: int) -> Tensor:
    """The mean () of the numbers that the model writes behind the labels."""
    question = form.question.replace("{}", prompt)
    written = write(vlm, look, question, (), tokens)
    answer = [token for token in written.ids.tolist() if token != vlm.tokenizer.eos_token_id]
    numbers = []
    for label in form.labels:
        number = number_behind(written, label, digits(vlm))
        if number is None:
            answer += vlm.encode(f"\n{label} ")
            forced = write(vlm, look, question, answer, 2 + DECIMALS)
            answer += [token for token in forced.ids.tolist() if token in digits(vlm)]
            number = expected_number(forced, 0, digits(vlm))
        numbers.append(number)
    return torch.stack(numbers).mean()


def write(vlm: Vlm, look: Look, question: str, answer: Sequence[int], tokens: int) -> Written:
    """What the model writes after the tokens `answer`, always its likeliest one; at most so many tokens."""
    inputs = vlm.inputs(look, question, answer)
    made = vlm.model.generate(
        **inputs, max_new_tokens=tokens, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    ids = made.sequences[0, inputs["input_ids"].shape[1] :]
    text = [vlm.tokenizer.decode([one], skip_special_tokens=True) for one in ids.tolist()]
    return Written(ids, torch.cat(list(made.logits)).float(), tuple(text))


def digits(vlm: Vlm) -> tuple[int, ...]:
    """Token numbers of the digits 0 to 9."""
    return tuple(vlm.encode(str(digit))[-1] for digit in range(10))


def number_behind(written: Written, label: str, digits: Sequence[int]) -> Tensor | None:
    """The number behind the last place where `label` stands, or None if it stands nowhere or no digit follows."""
    text = "".join(written.text)
    place = text.rfind(label)
    if place < 0:
        return None
    length = 0
    for index, piece in enumerate(written.text):
        if length >= place + len(label) and int(written.ids[index]) in digits:
            return expected_number(written, index, digits)
        length += len(piece)
    return None


def expected_number(written: Written, start: int, digits: Sequence[int]) -> Tensor:
    """The number that begins with token `start`, digit by digit as expected values: 1 to 5, then the decimals."""
    number = _expected(written.logits[start], digits[1:6], 1)
    behind = list(zip(written.text, written.ids.tolist(), strict=True))[start + 1 : start + 2 + DECIMALS]
    if int(written.ids[start]) not in digits or not behind or behind[0][0] != ".":
        return number
    for place, (_, token) in enumerate(behind[1:], start=1):
        if token not in digits:
            break
        number = number + _expected(written.logits[start + 1 + place], digits, 0) / 10**place
    return number


def _expected(logits: Tensor, digits: Sequence[int], first: int) -> Tensor:
    """Σ d p(d) / Σ p(d) over digits that count up from `first`."""
    weights = logits[list(digits)].softmax(0)
    return (weights * torch.arange(first, first + len(digits), device=logits.device)).sum()
