"""The prompt: encoded once and remembered, and what of it the encoder cannot read."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn


def remember_prompts(pipe: Any) -> None:  # noqa: ANN401 - diffusers has no types
    """Make this pipeline object answer repeated `encode_prompt` calls from memory.

    The key is everything the call is given, tensors by identity. Since that includes the number of copies, what the
    text encoders say about the same tokens is remembered too. Pipelines without `encode_prompt` are left alone.
    """
    encode = getattr(pipe, "encode_prompt", None)
    if encode is not None:
        encoders = [_Encoder(part) for part in pipe.components.values() if isinstance(part, nn.Module)]
        vars(pipe)["encode_prompt"] = _remembered(encode, encoders)


class _Encoder:
    """A module that, while in use, answers from memory when it is given tokens that it has seen."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.answers: dict[object, object] = {}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Shadow the module's `forward`; an offload hook may already have done so, and gets its own back."""
        own, forward = vars(self.module).get("forward"), self.module.forward

        def remembered(*args: object, **kwargs: object) -> object:
            if not _only_tokens((args, kwargs)):
                return forward(*args, **kwargs)
            key = _content((args, kwargs))
            if key not in self.answers:
                self.answers[key] = forward(*args, **kwargs)
            return self.answers[key]

        vars(self.module)["forward"] = remembered
        try:
            yield
        finally:
            vars(self.module).pop("forward")
            if own is not None:
                vars(self.module)["forward"] = own


def _remembered(encode: Callable[..., object], encoders: Sequence[_Encoder]) -> Callable[..., object]:
    answers: dict[object, tuple[object, object]] = {}

    @functools.wraps(encode)
    def encode_prompt(*args: object, **kwargs: object) -> object:
        key = _key((args, kwargs))
        if key not in answers:
            with ExitStack() as shadows:
                for encoder in encoders:
                    shadows.enter_context(encoder.in_use())
                answers[key] = encode(*args, **kwargs), (args, kwargs)  # keeps the arguments, and so their identities
        return _fresh(answers[key][0])

    return encode_prompt


def _only_tokens(value: object) -> bool:
    """Whether all tensors are token ids and masks, so that they are small and say what the answer will be."""
    if isinstance(value, list | tuple):
        return all(map(_only_tokens, value))
    if isinstance(value, dict):
        return all(map(_only_tokens, value.values()))
    return not isinstance(value, Tensor) or not value.is_floating_point()


def _content(value: object) -> object:
    """A key by which equal tensors are equal."""
    if isinstance(value, list | tuple):
        return tuple(map(_content, value))
    if isinstance(value, dict):
        return tuple((name, _content(item)) for name, item in sorted(value.items()))
    return (tuple(value.shape), tuple(value.flatten().tolist())) if isinstance(value, Tensor) else _key(value)


def _key(value: object) -> object:
    if isinstance(value, list | tuple):
        return (type(value), *(_key(item) for item in value))
    if isinstance(value, dict):
        return tuple((name, _key(item)) for name, item in sorted(value.items()))
    if isinstance(value, str | int | float | None):
        return (type(value), value)
    return id(value) if isinstance(value, Tensor) else repr(value)


def _fresh(answer: object) -> object:
    """New containers around the same tensors: some pipelines extend the lists that they get."""
    if isinstance(answer, list):
        return [_fresh(item) for item in answer]
    if isinstance(answer, tuple):
        return tuple(_fresh(item) for item in answer)
    return answer


def truncated_prompt(pipe: Any, prompt: str, *, max_sequence_length: int | None = None) -> str | None:  # noqa: ANN401
    """The end of the prompt that no text encoder of the pipeline reads, or None if all of it is read.

    Args:
        pipe: a diffusers pipeline with one or several tokenizers.
        prompt: the text.
        max_sequence_length: as given to the pipeline's call; its default if left out.
    """
    limit = max_sequence_length or _default_length(pipe)
    tokenizers = [item for item in pipe.components.values() if hasattr(item, "model_max_length")]
    lost = [_lost(tokenizer, prompt, min(limit, tokenizer.model_max_length)) for tokenizer in tokenizers]
    shortest = min(lost, key=len, default="")
    return shortest.strip() or None


def _default_length(pipe: Any) -> int:  # noqa: ANN401
    option = inspect.signature(type(pipe).__call__).parameters.get("max_sequence_length")
    return option.default if option is not None and isinstance(option.default, int) else 10**9


def _lost(tokenizer: Any, prompt: str, limit: int) -> str:  # noqa: ANN401
    """What is left of the prompt after the tokens that fit, special ones included."""
    room = limit - tokenizer.num_special_tokens_to_add()
    ids = tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids
    if len(ids) <= room:
        return ""
    if tokenizer.is_fast:
        spans = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False).offset_mapping
        return prompt[spans[room][0] :]
    return str(tokenizer.decode(ids[room:], skip_special_tokens=True))
