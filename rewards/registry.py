"""From a reward's name to the reward: built-in ones, those of installed packages, and any class by its import path.

A reward is imported only when it is asked for. Another package adds one with an entry point:

    [project.entry-points."bon_search.rewards"]
    my-reward = "my_package.my_module:MyReward"
"""

import difflib
import inspect
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from rewards.base import Reward
from rewards.errors import RewardError, UnknownRewardError

GROUP = "bon_search.rewards"
BUILT_IN = {
    "aesthetic": "rewards.aesthetic:load_aesthetic",
    "clipscore": "rewards.clipscore:load_clipscore",
    "hpsv2": "rewards.hpsv2:load_hpsv2",
    "imagereward": "rewards.imagereward:load_imagereward",
    "llava-reward": "rewards.llava.reward:load_llava_reward",
    "mps": "rewards.mps:load_mps",
    "pickscore": "rewards.pickscore:load_pickscore",
    "pixels": "rewards.pixels:load_pixels",
    "shapes": "rewards.shapes.reward:ShapesReward",
    "vqascore": "rewards.vqascore:load_vqascore",
}


def load_reward(spec: str, **options: Any) -> Reward:
    """The reward that `spec` names.

    Args:
        spec: "name", "name:variant" (for example "pixels:sharpness"), or "package.module:Class".
        options: keyword arguments of that reward, for example `checkpoint` and `device` of "llava-reward".

    Raises:
        UnknownRewardError: no such reward, variant or option; the message names the nearest one there is.
        RewardError: the reward refuses its options.
    """
    name, _, rest = spec.partition(":")
    targets = _targets()
    if name in targets:
        factory = _resolve(targets[name], spec)
        options |= {"variant": rest} if rest else {}
    elif rest and all(part.isidentifier() for part in name.split(".")):
        factory = _resolve(spec, spec)
    else:
        raise UnknownRewardError(
            f"Unknown reward {name!r}{did_you_mean(name, targets)}; expected one of {', '.join(sorted(targets))}, or "
            "package.module:Class for your own."
        )
    _check_options(factory, options, spec)
    reward = _made(factory, options, spec)
    if not isinstance(reward, Reward):
        raise UnknownRewardError(
            f"{spec!r} gives a {type(reward).__name__}, which is no reward; expected an object with name, absolute and "
            "__call__(images, prompts), see rewards.base.Reward."
        )
    return reward


def reward_names() -> tuple[str, ...]:
    """Names that `load_reward` knows, sorted."""
    return tuple(sorted(_targets()))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The hint ": did you mean 'x'?" for the nearest of `known`, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {near[0]!r}?" if near else ""


@cache
def _targets() -> dict[str, str]:
    return {entry.name: entry.value for entry in entry_points(group=GROUP)} | BUILT_IN


def _resolve(target: str, spec: str) -> Callable[..., Any]:
    module, _, attribute = target.partition(":")
    try:
        factory: Callable[..., Any] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownRewardError(
            f"Reward {spec!r} cannot be imported: {error}; expected package.module:Class."
        ) from error
    return factory


def _made(factory: Callable[..., Any], options: dict[str, Any], spec: str) -> object:
    """The reward; what other people's code does wrong becomes a sentence, with the cause attached."""
    try:
        return factory(**options)
    except RewardError:
        raise
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else "no message"
        raise UnknownRewardError(
            f"Reward {spec!r} cannot be made ({type(error).__name__}: {said}); "
            "expected a class or function that takes no arguments, or those that were given."
        ) from error


def _check_options(factory: Callable[..., Any], options: dict[str, Any], spec: str) -> None:
    if not callable(factory):
        raise UnknownRewardError(f"{spec!r} is a {type(factory).__name__}; expected a class, or a function for one.")
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a class written in C; what it gives is checked afterwards
        return
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            what = "variants" if option == "variant" else f"option {option!r}{did_you_mean(option, parameters)}"
            takes = ", ".join(parameters) or "none"
            raise UnknownRewardError(f"Reward {spec!r} has no {what}; its options are: {takes}.")
