"""The verifier and its reward: true pictures pass, false ones fail, for reasons that are known."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from rewards.errors import ImageError
from rewards.shapes import ALL_SKILLS, parse
from rewards.shapes.captions import COLORS, SHAPES, UnknownPromptError
from rewards.shapes.detector import Floats, detect
from rewards.shapes.render import render
from rewards.shapes.reward import ShapesReward
from rewards.shapes.scenes import Scene, Thing, prompt_set, random_scene, scene_for, true_spec
from rewards.shapes.verifier import Verdict, verify_batch


def pictures(scenes: Sequence[Scene], seed: int = 0) -> Floats:
    rng = Random(seed)
    return np.stack([render(scene, rng) for scene in scenes]).astype(np.float32) / np.float32(255)


def scene(*things: Thing) -> Scene:
    return Scene("two", tuple(things))


def verdict(prompt: str, *things: Thing) -> Verdict:
    return verify_batch(pictures([scene(*things)]), [parse(prompt)])[0]


RED_LEFT = Thing("circle", "red", 16, 32, 10)
BLUE_RIGHT = Thing("square", "blue", 46, 34, 10)


def test_true_pictures_pass_and_everything_in_them_is_found() -> None:
    rng = Random(1)
    scenes = [random_scene(rng) for _ in range(150)]
    specs = [true_spec(one, rng) for one in scenes]
    images = pictures(scenes)
    verdicts = verify_batch(images, specs)
    assert all(one.strict for one in verdicts)
    for one, found in zip(scenes, detect(images), strict=True):
        assert sorted((t.shape, t.color) for t in one.things) == sorted((o.shape, o.color) for o in found)
        assert max(min(np.hypot(t.x - o.x, t.y - o.y) for o in found) for t in one.things) < 1.5


@pytest.mark.parametrize("skill", ALL_SKILLS)
def test_a_picture_of_something_else_fails(skill: str) -> None:
    """One wrong shape, one wrong colour, and one missing thing, for each of 40 sentences."""
    rng = Random(skill)
    specs = prompt_set(40, seed=7, skills=[skill])
    wrong = []
    for spec in specs:
        first, *rest = scene_for(spec, rng).things
        if spec.include[0].color:
            other = rng.choice([c for c in COLORS if all(c != noun.color for noun in spec.include)])
            wrong.append((scene(replace(first, color=other), *rest), spec))
        shape = rng.choice([s for s in SHAPES if all(s != noun.shape for noun in spec.include)])
        wrong.append((scene(replace(first, shape=shape), *rest), spec))
        wrong.append((scene(*rest), spec))
    verdicts = verify_batch(pictures([one for one, _ in wrong]), [spec for _, spec in wrong])
    assert not any(one.correct for one in verdicts)
    assert all(one.reason for one in verdicts)


@pytest.mark.parametrize(
    ("prompt", "correct"),
    [
        ("a red circle left of a blue square", True),
        ("a blue square right of a red circle", True),
        ("a circle left of a square", True),
        ("a red circle right of a blue square", False),
        ("a red circle above a blue square", False),  # 2 pixels higher, but 30 to the left
        ("a blue square left of a red circle", False),
        ("a red circle left of a red square", False),
    ],
)
def test_relations(prompt: str, correct: bool) -> None:
    assert verdict(prompt, RED_LEFT, BLUE_RIGHT).correct is correct


@pytest.mark.parametrize(("number", "expected"), [(1, False), (2, False), (3, True), (4, False)])
def test_counts_are_exact(number: int, expected: bool) -> None:
    stars = [Thing("star", "green", x, y, 8) for x, y in [(14, 14), (50, 14), (14, 50), (50, 50)][:number]]
    assert verdict("three green stars", *stars).correct is expected


def test_other_things_are_allowed_but_not_strict() -> None:
    both = verdict("a red circle", RED_LEFT, BLUE_RIGHT)
    alone = verdict("a red circle", RED_LEFT)
    assert (both.correct, both.strict) == (True, False)
    assert (alone.correct, alone.strict) == (True, True)
    assert alone.score > both.score


def test_one_object_cannot_stand_for_two_nouns() -> None:
    prompt = "a red circle and a red circle"
    assert verdict(prompt, RED_LEFT).reason == "one object stands for two nouns"
    assert verdict(prompt, RED_LEFT, replace(RED_LEFT, x=46)).strict


def test_the_score_grows_with_what_is_right() -> None:
    prompt = "a red circle left of a blue square"
    nothing = verdict(prompt)
    half = verdict(prompt, RED_LEFT)
    wrong_side = verdict(prompt, replace(RED_LEFT, x=46), replace(BLUE_RIGHT, x=16))
    right = verdict(prompt, RED_LEFT, BLUE_RIGHT)
    assert nothing.score < half.score < wrong_side.score < right.score <= 1
    assert wrong_side.reason == "circle not left of square"


def test_batches_equal_single_pictures_even_when_blurred_and_noisy() -> None:
    rng = Random(5)
    scenes = [random_scene(rng) for _ in range(40)]
    noise = np.random.default_rng(0).normal(0, 0.08, (40, 64, 64, 3)).astype(np.float32)
    images = np.clip(pictures(scenes) + noise, 0, 1)
    assert detect(images) == tuple(detect(image[None])[0] for image in images)


def test_components_are_found_whatever_their_form() -> None:
    """A spiral one pixel wide is one component; its arms touch nowhere."""
    spiral = np.zeros((64, 64), bool)
    for k in range(0, 28, 4):
        spiral[k, k : 64 - k] = spiral[k : 64 - k, 63 - k] = spiral[63 - k, k : 64 - k] = spiral[k + 4 : 64 - k, k] = (
            True
        )
        spiral[k + 4, k : k + 4] = True
        spiral[k + 4, k + 1 : k + 4] = True
    image = np.where(spiral[..., None], np.float32([0.87, 0.15, 0.16]), np.float32(0.9))[None].astype(np.float32)
    (found,) = detect(image)
    assert [(one.color, one.area) for one in found] == [("red", int(spiral.sum()))]


def test_the_reward_puts_passes_first_and_takes_all_forms_of_pictures() -> None:
    reward = ShapesReward()
    bytes_ = np.stack([render(scene(*things), Random(0)) for things in [(RED_LEFT,), (RED_LEFT, BLUE_RIGHT), ()]])
    prompts = ["a red circle left of a blue square"] * 3
    scores = reward(bytes_, prompts)
    assert scores.dtype == torch.float32
    assert 1 > scores[0] > scores[2] >= 0
    assert 1 <= scores[1] < 2
    tensor = torch.from_numpy(bytes_).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(reward(tensor, prompts), scores)
    assert torch.equal(reward([Image.fromarray(one) for one in bytes_], prompts), scores)
    one_by_one = [reward(image[None], [prompt]) for image, prompt in zip(tensor, prompts, strict=True)]
    assert torch.equal(torch.cat(one_by_one), scores)


def test_larger_square_pictures_are_resized_and_others_refused() -> None:
    reward = ShapesReward()
    image = torch.from_numpy(pictures([scene(RED_LEFT, BLUE_RIGHT)])).permute(0, 3, 1, 2)
    large = torch.nn.functional.interpolate(image, (256, 256), mode="bicubic").clamp(0, 1)
    assert reward(large, ["a red circle left of a blue square"])[0] > 1
    with pytest.raises(ImageError, match="needs square pictures; got 64 x 32"):
        reward(image[..., :32], ["a red circle"])


def test_prompts_outside_the_grammar_are_refused() -> None:
    with pytest.raises(UnknownPromptError, match="'dragon'"):
        ShapesReward()(torch.zeros(1, 3, 64, 64), ["a dragon"])
