"""From a specification to the reward: a built-in one, one of an installed package, any class or function, or several.

A reward is imported only when it is asked for. Another package adds one with an entry point:

    [project.entry-points."bon_search.rewards"]
    my-reward = "my_package.my_module:MyReward"
"""

import ast
import inspect
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rewards.base import Reward
from rewards.errors import RewardError, UnknownRewardError
from rewards.function import FunctionReward
from rewards.grammar import Named, Node, names, parse
from rewards.nearest import did_you_mean

GROUP = "bon_search.rewards"
BUILT_IN = {
    "aesthetic": "rewards.aesthetic:load_aesthetic",
    "clipscore": "rewards.clipscore:load_clipscore",
    "geneval": "rewards.geneval:load_geneval",
    "hpsv2": "rewards.hpsv2:load_hpsv2",
    "hpsv3": "rewards.hpsv3:load_hpsv3",
    "imagereward": "rewards.imagereward:load_imagereward",
    "jpeg": "rewards.jpeg:load_jpeg",
    "judge": "rewards.judge:load_judge",
    "llava-reward": "rewards.llava.reward:load_llava_reward",
    "mps": "rewards.mps:load_mps",
    "nsfw": "rewards.nsfw:load_nsfw",
    "ocr": "rewards.ocr:load_ocr",
    "pickscore": "rewards.pickscore:load_pickscore",
    "pixels": "rewards.pixels:load_pixels",
    "shapes": "rewards.shapes.reward:ShapesReward",
    "unifiedreward": "rewards.unifiedreward:load_unifiedreward",
    "vqascore": "rewards.vqascore:load_vqascore",
}


def load_reward(spec: str, *, calibration: str | Path | None = None, **options: Any) -> Reward:
    """The reward that `spec` names.

    Args:
        spec: "name", "name:variant" (for example "pixels:sharpness"), "package.module:Class" or a function written the
            same way, or several of them combined; see `rewards.grammar`.
        calibration: a file with deviations for sums; see `rewards.calibration`.
        options: keyword arguments of that reward, for example `checkpoint` and `device` of "llava-reward"; of several
            rewards each gets those it has.

    Raises:
        SpecError: the specification cannot be read.
        UnknownRewardError: no such reward, variant or option; the message names the nearest one there is.
        RewardError: the reward refuses its options.
    """
    node = parse(spec)
    if isinstance(node, Named):
        return _load(node, spec, options)
    from rewards.calibration import TYPICAL, read_calibration
    from rewards.combine import build

    shares = _shares(node, spec, options)
    known = TYPICAL | (read_calibration(calibration) if calibration else {})
    return build(node, spec, lambda named: _load(named, spec, shares[named]), known)


def check_spec(spec: str, **options: Any) -> None:
    """Raise what `load_reward` would of a specification's form and the names and options in it; nothing is loaded."""
    for named, share in _shares(parse(spec), spec, options).items():
        try:
            _check_options(_factory(named, spec), _settings(named, share), named.name)
        except UnknownRewardError as error:
            raise UnknownRewardError(f"{error}{_pointer(named, spec)}") from error


def takes(spec: str, option: str) -> bool:
    """Whether a reward in `spec` has that option; nothing is loaded.

    Raises:
        SpecError: the specification cannot be read.
        UnknownRewardError: no such reward.
    """
    return any(option in _parameters(_factory(named, spec)) for named in names(parse(spec)))


def _shares(node: Node, spec: str, options: dict[str, Any]) -> dict[Named, dict[str, Any]]:
    """What each reward gets of the options: one alone all, of several each what it has."""
    factories = {named: _factory(named, spec) for named in names(node)}
    if isinstance(node, Named):
        return {node: options}
    known = {named: _parameters(factory) for named, factory in factories.items()}
    for option in options:
        if not any(option in each for each in known.values()):
            raise UnknownRewardError(f"No reward of {spec!r} has the option {option!r}.")
    return {named: {name: value for name, value in options.items() if name in each} for named, each in known.items()}


def _settings(named: Named, options: dict[str, Any]) -> dict[str, Any]:
    """The options of the call and those in the specification, where a variant is one."""
    variant = named.name.partition(":")[2] if named.name.partition(":")[0] in _targets() else ""
    settings = {**options, **{name: _value(name, value) for name, value in named.options}}
    return settings | ({"variant": variant} if variant else {})


def _load(named: Named, spec: str, options: dict[str, Any]) -> Reward:
    """One reward, with the options of the call and those in the specification."""
    factory, settings = _factory(named, spec), _settings(named, options)
    if not settings and _is_score(factory):
        return FunctionReward(factory, named.name)
    try:
        _check_options(factory, settings, named.name)
        reward = _made(factory, settings, named.name)
    except UnknownRewardError as error:
        raise UnknownRewardError(f"{error}{_pointer(named, spec)}") from error
    if not isinstance(reward, Reward):
        raise UnknownRewardError(
            f"{named.name!r} gives a {type(reward).__name__}, which is no reward; expected an object with name, "
            "absolute and __call__(images, prompts), see rewards.base.Reward."
        )
    return reward


def _factory(named: Named, spec: str) -> Callable[..., Any]:
    """What makes the reward of that name."""
    name, _, rest = named.name.partition(":")
    targets = _targets()
    if name in targets:
        return _resolve(targets[name], named.name)
    if rest and all(part.isidentifier() for part in name.split(".")) and ("." in name or find_spec(name)):
        return _resolve(named.name, named.name)
    expected = f"Expected one of {', '.join(sorted(targets))}, or package.module:Class or module:function for your own."
    what = f"{name!r}, nor is there such a module" if rest else repr(name)
    raise UnknownRewardError(f"Unknown reward {what}{did_you_mean(name, targets)} {expected}{_pointer(named, spec)}")


def _pointer(named: Named, spec: str) -> str:
    """The specification with a caret under the reward at fault, unless that is all of it."""
    return "" if spec.strip() == named.name else f"\n  {spec}\n  {' ' * named.at}^"


def _is_score(factory: Callable[..., Any]) -> bool:
    """Whether it is a function that scores, which needs pictures and prompts, rather than one that makes a reward."""
    if not inspect.isfunction(factory):
        return False
    needed = [each for each in inspect.signature(factory).parameters.values() if each.default is each.empty]
    return len([each for each in needed if each.kind is each.POSITIONAL_OR_KEYWORD]) == len(needed) == 2


def _parameters(factory: Callable[..., Any]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return ()


def _value(name: str, text: str) -> object:
    """What an option is given; a checkpoint stays text, for a folder may be named by a number."""
    value = _literal(text)
    return text if name == "checkpoint" and value is not None else value


def _literal(text: str) -> object:
    """A number, True, False or None; anything else is text."""
    try:
        value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float | bool | None) else text


def plug_ins() -> dict[str, str]:
    """Rewards of installed packages: name → module:attribute."""
    return {name: target for name, target in sorted(_targets().items()) if name not in BUILT_IN}


def reward_names() -> tuple[str, ...]:
    """Names that `load_reward` knows, sorted."""
    return tuple(sorted(_targets()))


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
            "expected a class or function that takes no arguments, or those that were given, or a function (images, "
            "prompts) that scores."
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
            what = "variants." if option == "variant" else f"option {option!r}{did_you_mean(option, parameters)}"
            takes = ", ".join(parameters) or "none"
            raise UnknownRewardError(f"Reward {spec!r} has no {what} Its options are: {takes}.")
