"""The embedded LLaVA-Reward reads: numbers on renders that it never saw, well under those of its model card."""

import time
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from rewards import load_reward
from rewards.base import Reward
from rewards.errors import CheckpointError
from rewards.llava.checkpoint import EMBEDDED
from rewards.llava.hub import find_embedded
from rewards.shapes.captions import RELATIONS, Requirement, Spec
from rewards.shapes.render import render
from rewards.shapes.scenes import random_spec, scene_for
from rewards.testing import check_reward

PAIRS = 60


@pytest.fixture(scope="module")
def reward() -> Reward:
    return load_reward("llava-reward")


def pictures(specs: list[Spec], seed: int) -> np.ndarray:
    rng = Random(seed)
    return np.stack([render(scene_for(spec, rng), rng) for spec in specs])


def held_out(skill: str) -> list[Spec]:
    rng = Random(f"test-{skill}")
    return [random_spec(rng, skill, "test") for _ in range(PAIRS)]


def moved(spec: Spec) -> Spec:
    """`spec` with the opposite relation."""
    opposite = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))
    return Spec(spec.skill, spec.include, opposite[spec.relation or ""], spec.prefixed)


def exchanged(spec: Spec) -> Spec:
    """`spec` with the colours of its two nouns exchanged."""
    a, b = spec.include
    include = (Requirement(a.shape, b.color), Requirement(b.shape, a.color))
    return Spec(spec.skill, include, None, spec.prefixed)


def miscounted(spec: Spec) -> Spec:
    """`spec` with one more, or one fewer where there are four."""
    noun = spec.include[0]
    count = noun.count + 1 if noun.count < 4 else 3
    return Spec(spec.skill, (Requirement(noun.shape, noun.color, count),), None, spec.prefixed)


CHANGES = {"position": moved, "color_attr": exchanged, "counting": miscounted}


def is_changed(spec: Spec) -> bool:
    """Whether the twin says something else: colours of two equal shapes change places without a difference."""
    twin = CHANGES[spec.skill](spec)
    return spec.relation != twin.relation or set(spec.include) != set(twin.include)


def test_it_is_small_and_complete() -> None:
    names = {path.name for path in EMBEDDED.iterdir()}
    assert {"config.json", "model.safetensors", "reward_head.safetensors", "reward.json", "README.md"} <= names
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 25e6


def test_it_keeps_the_contract(reward: Reward) -> None:
    check_reward(reward, differentiable=True)


@pytest.mark.parametrize(("skill", "least"), [("position", 0.95), ("color_attr", 0.95), ("counting", 0.9)])
def test_a_true_sentence_scores_above_its_false_twin(reward: Reward, skill: str, least: float) -> None:
    specs = [spec for spec in held_out(skill) if is_changed(spec)]
    images = pictures(specs, seed=1)
    true = reward(images, [spec.prompt for spec in specs])
    false = reward(images, [CHANGES[skill](spec).prompt for spec in specs])
    assert (true > false).float().mean() >= least


@pytest.mark.parametrize(("skill", "least"), [("position", 0.95), ("color_attr", 0.95), ("counting", 0.9)])
def test_a_picture_that_shows_the_sentence_scores_above_one_that_does_not(
    reward: Reward, skill: str, least: float
) -> None:
    specs = [spec for spec in held_out(skill) if is_changed(spec)]
    prompts = [spec.prompt for spec in specs]
    shows = reward(pictures(specs, seed=2), prompts)
    shows_not = reward(pictures([CHANGES[skill](spec) for spec in specs], seed=2), prompts)
    assert (shows > shows_not).float().mean() >= least


def test_fidelity_scores_clean_pictures_above_damaged_ones() -> None:
    fidelity = load_reward("llava-reward:embedded-fidelity")
    specs = held_out("position") + held_out("counting")
    prompts, clean = [spec.prompt for spec in specs], pictures(specs, seed=7)
    draws = np.random.default_rng(7)
    blurred = np.stack([Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.2)) for image in clean])
    noisy = np.clip(clean + draws.normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    scores = fidelity(clean, prompts)
    for damaged in (blurred, noisy):
        assert (scores > fidelity(damaged, prompts)).float().mean() >= 0.95
    unrelated = prompts[1:] + prompts[:1]
    assert (
        fidelity(clean, unrelated) > fidelity(blurred, prompts)
    ).float().mean() >= 0.9  # the sentence hardly matters


@pytest.mark.parametrize("words", ["embedded-fidelity", "embedded fidelity", "embedded/fidelity", "embedded_artifact"])
def test_a_perspective_is_found_however_its_words_are_parted(words: str) -> None:
    assert find_embedded(words) == EMBEDDED / "fidelity"


@pytest.mark.parametrize("name", ["llava-reward:embedded", "llava-reward:embedded-alignment"])
def test_the_embedded_reward_has_names(reward: Reward, name: str) -> None:
    images = pictures(held_out("colors")[:3], seed=8)
    prompts = [spec.prompt for spec in held_out("colors")[:3]]
    assert torch.equal(load_reward(name)(images, prompts), reward(images, prompts))


def test_an_embedded_perspective_that_is_not_there_is_told_what_is() -> None:
    with pytest.raises(CheckpointError, match=r"'safety' matches no checkpoint in .*, which holds fidelity"):
        load_reward("llava-reward:embedded-safety")


def test_with_the_wrong_sentence_it_cannot_tell_pictures_apart(reward: Reward) -> None:
    specs = held_out("position") + held_out("color_attr")
    others = pictures(specs[1:] + specs[:1], seed=3)
    unrelated = [spec.prompt for spec in specs[2:] + specs[:2]]
    share = (reward(pictures(specs, seed=4), unrelated) > reward(others, unrelated)).float().mean()
    assert 0.35 <= share <= 0.65  # 120 pairs: chance within three standard errors


def test_case_and_punctuation_do_not_matter(reward: Reward) -> None:
    image = torch.from_numpy(pictures(held_out("colors")[:1], seed=5)).permute(0, 3, 1, 2) / 255
    plain = reward(image, ["a red circle and a blue square"])
    assert torch.equal(plain, reward(image, ["A red circle, and a blue square."]))


def test_sixteen_pictures_take_well_under_a_second(reward: Reward) -> None:
    specs = (held_out("position") * 16)[:16]
    images = pictures(specs, seed=6)
    times = []
    for _ in range(3):
        start = time.process_time()
        reward(images, [spec.prompt for spec in specs])
        times.append(time.process_time() - start)
    assert min(times) < 1.0
