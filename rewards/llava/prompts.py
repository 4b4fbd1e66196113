"""Prompts as the language model takes them: the picture first, then the prompt as it is, then the end of sentence."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rewards.errors import RewardError

IMAGE = "<image>"


class Encoded(NamedTuple):
    """Prompts in numbers, padded on the right.

    Attributes:
        ids: (N, L) tokens.
        mask: (N, L), 1 for what is real.
        last: (N,) place of the last real token, whose state the head reads.
    """

    ids: Tensor
    mask: Tensor
    last: Tensor


def encode(prompts: Sequence[str], tokenizer: Any, template: str, image_tokens: int) -> Encoded:  # noqa: ANN401
    r"""N prompts in `template`, for example "USER: <image>\n{prompt}</s>", with the image's token repeated.

    Raises:
        RewardError: a prompt is empty, or spells one of the tokenizer's special tokens.
    """
    prefix, suffix = template.replace(IMAGE, IMAGE * image_tokens).split("{prompt}")
    rows = [
        torch.tensor(tokenizer(prefix + _checked(prompt, tokenizer) + suffix).input_ids, dtype=torch.long)
        for prompt in prompts
    ]
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return Encoded(ids, mask, lengths - 1)


def _checked(prompt: str, tokenizer: Any) -> str:  # noqa: ANN401
    if not prompt.strip():
        raise RewardError(f"Got the empty prompt {prompt!r}; expected words that say what the picture should show.")
    for token in tokenizer.all_special_tokens:
        if token in prompt:
            raise RewardError(f"The prompt {prompt!r} holds {token!r}, which the reward uses itself; leave it out.")
    return prompt
