"""Rewards as command lines and the wrapper ask for them: specifications, and what is said of all of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bon_search.errors import SearchError

if TYPE_CHECKING:
    from rewards import Reward


@dataclass(frozen=True)
class Wishes:
    """What a command line says of its rewards.

    Attributes:
        options: Of the rewards; in a combination, and by `shares`, each gets those that it has.
        device: "auto" leaves it to the reward; as an option it is one of those.
        allow_empty: Take prompts without a word, where the reward can be told so.
        calibration: File with the deviations of the rewards of a sum.
    """

    options: Mapping[str, object] = field(default_factory=dict)
    device: str = "auto"
    allow_empty: bool = False
    calibration: Path | None = None


def load(spec: str, wishes: Wishes = Wishes()) -> Reward:
    """The reward that `spec` names, with all that was asked for.

    Args:
        spec: For example "pickscore", "llava-reward@runs/mine" or "0.7*pickscore + 0.3*aesthetic".
        wishes: What else was asked for.

    Raises:
        RewardError: No such reward, or it refuses its options.
    """
    from rewards import load_reward
    from rewards.errors import UnknownRewardError

    leave: dict[str, Any] = {} if wishes.device == "auto" else {"device": wishes.device}
    leave |= {"allow_empty": True} if wishes.allow_empty else {}
    while True:
        try:
            return load_reward(spec, calibration=wishes.calibration, **wishes.options, **leave)
        except UnknownRewardError:  # one without a choice of device is on the CPU anyway, one may not read prompts
            if leave.get("device") == "cpu":
                leave.pop("device")
            elif leave.pop("allow_empty", None) is None:
                raise


def shares(specs: Sequence[str], wishes: Wishes) -> dict[str, Wishes]:
    """What is said of each of several rewards: options, and the choice of a device, go to those that have them.

    Raises:
        RewardError: No such reward, or an option that none of them has; nothing is loaded before that is known.
    """
    from rewards.registry import check_spec, takes

    found = {}
    device = {} if wishes.device in ("auto", "cpu") else {"device": wishes.device}  # the CPU is right for all
    said = {**wishes.options, **device}
    taken = {option for option in said if any(takes(spec, option) for spec in specs)}
    for spec in specs:
        own = {option: value for option, value in said.items() if option not in taken or takes(spec, option)}
        check_spec(spec, **own)
        where = str(own.pop("device", "auto")) if device else wishes.device
        found[spec] = replace(wishes, options=own, device=where)
    return found


def check_places(asked: Mapping[str, Wishes]) -> None:
    """Raise, before one of several rewards is loaded, what loading would of LLaVA-Reward checkpoints not there.

    Raises:
        RewardError: There is no such checkpoint.
    """
    from rewards.grammar import names, parse
    from rewards.llava.reward import find_llava_reward

    for spec, wishes in asked.items():
        for named in names(parse(spec)):
            kind, _, variant = named.name.partition(":")
            own = dict(named.options).get("checkpoint") or wishes.options.get("checkpoint")
            if kind == "llava-reward":
                find_llava_reward(None if own is None else str(own), variant)


def as_reward(reward: object) -> Reward:
    """What the wrapper was given as a reward: one, a function that scores, or a specification.

    Raises:
        SearchError: It is none of these.
        RewardError: No such reward.
    """
    from rewards import Reward, load_reward
    from rewards.function import FunctionReward

    if isinstance(reward, str):
        return load_reward(reward)
    function = reward.func if isinstance(reward, partial) else reward
    if inspect.isroutine(function):
        return FunctionReward(reward, function.__name__)  # type: ignore[arg-type]
    if isinstance(reward, type) or not isinstance(reward, Reward):
        raise SearchError(
            f"{reward!r} is no reward; expected a name such as 'llava-reward', a function (images, prompts) that "
            "scores, or an object with name, absolute and __call__(images, prompts)."
        )
    return reward


def is_embedded(spec: str) -> bool:
    """Whether the embedded LLaVA-Reward is among the rewards that `spec` names.

    Raises:
        SpecError: It cannot be read.
    """
    from rewards.grammar import names, parse

    named = [each for each in names(parse(spec)) if each.name.partition(":")[0] == "llava-reward"]
    variants = [each.name.partition(":")[2] for each in named if "checkpoint" not in dict(each.options)]
    if not variants:
        return False
    from rewards.llava import hub

    return any(not variant or hub.is_embedded(variant) for variant in variants)


def note(reward: Reward, spec: str, most: int) -> str:
    """What one might not expect of a combination, in a sentence; empty if there is nothing.

    Args:
        reward: As loaded.
        spec: Its specification.
        most: Pictures of one prompt at most.
    """
    from rewards.combine import CascadeReward, RankSum
    from rewards.grammar import Sum, names, parse

    node = parse(spec)
    if isinstance(reward, RankSum) and isinstance(node, Sum):
        unknown = ", ".join(dict.fromkeys(each.name for each in names(node)))
        return (
            f"the deviations of {unknown} within a prompt are not all known, so {spec!r} sums their ranks; for a sum "
            "of scores give --calibration FILE, which score-images --write-calibration makes."
        )
    first = reward.stages[0][0] if isinstance(reward, CascadeReward) else None
    if first is not None and first < most:
        return (
            f"warning: the first stage of {spec!r} judges {first} of {most} pictures; the others come last, unseen. "
            "Leave its number away for all."
        )
    return ""


def label(spec: str, options: Mapping[str, object]) -> str:
    """What a reward with options is called where its scores are kept."""
    return " ".join([spec, *(f"{name}={value}" for name, value in sorted(options.items()))])


def single_name(spec: str) -> str:
    """What a calibration file calls the reward that `spec` names.

    Raises:
        RewardError: It names several.
    """
    from rewards.errors import RewardError
    from rewards.grammar import Named, parse

    node = parse(spec)
    if not isinstance(node, Named):
        raise RewardError(f"A calibration is of single rewards, but {spec!r} combines some; give each of them.")
    return node.name


def check_names(specs: Sequence[str]) -> None:
    """Raise `RewardError` unless a calibration file has a name for each reward, and for no two the same."""
    from rewards.errors import RewardError

    known: dict[str, str] = {}
    for spec in specs:
        name = single_name(spec)
        if name in known:
            raise RewardError(
                f"A calibration file has one name, {name!r}, for {known[name]!r} and {spec!r}; measure them one by "
                "one, each into a file of its own."
            )
        known[name] = spec
