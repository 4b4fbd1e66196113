"""The grammar: every sentence is read back as what it was made from, and nothing else is understood."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.shapes import ALL_SKILLS, VOCABULARY, parse, try_parse, unknown_words
from rewards.shapes.captions import COLORS, RELATIONS, SHAPES, Requirement, Spec, UnknownPromptError
from rewards.shapes.scenes import Split, held_out, prompt_set, random_scene, random_spec, relation_between, true_spec

nouns = st.builds(Requirement, st.sampled_from(SHAPES), st.none() | st.sampled_from(COLORS))
skills = st.sampled_from(ALL_SKILLS)
seeds = st.integers(0, 2**32)


@given(seeds, skills, st.sampled_from(["train", "test"]))
def test_every_sentence_of_every_skill_is_read_back(seed: int, skill: str, split: Split) -> None:
    spec = random_spec(Random(seed), skill, split)
    assert spec.skill == skill
    assert parse(spec.prompt) == spec
    assert unknown_words(spec.prompt) == ()


@given(st.lists(nouns, min_size=2, max_size=2), st.sampled_from(RELATIONS), st.booleans())
def test_relations_are_read_with_and_without_colours(include: list[Requirement], relation: str, prefixed: bool) -> None:
    spec = Spec("position", tuple(include), relation, prefixed)
    assert parse(spec.prompt) == spec


@given(seeds, skills)
def test_case_and_spaces_do_not_matter(seed: int, skill: str) -> None:
    spec = random_spec(Random(seed), skill)
    assert parse("  " + spec.prompt.upper().replace(" ", "  ") + ".") == spec


@given(st.text())
def test_any_text_is_understood_or_refused(text: str) -> None:
    spec = try_parse(text)
    assert spec is None or parse(spec.prompt) == spec


@pytest.mark.parametrize(
    ("prompt", "spec"),
    [
        ("a photo of an orange star", Spec("colors", (Requirement("star", "orange"),), None, True)),
        ("a heart", Spec("single_object", (Requirement("heart"),))),
        ("four pink crosses", Spec("counting", (Requirement("cross", "pink", 4),))),
        ("a heart and a cross", Spec("two_object", (Requirement("heart"), Requirement("cross")))),
        (
            "a red circle left of a blue square",
            Spec("position", (Requirement("circle", "red"), Requirement("square", "blue")), "left of"),
        ),
    ],
)
def test_sentences_mean_what_they_say(prompt: str, spec: Spec) -> None:
    assert parse(prompt) == spec


def test_unknown_words_are_named_in_order_and_once() -> None:
    assert unknown_words("A dragon, red dragon on the Circle!") == ("dragon", "on", "the")
    with pytest.raises(UnknownPromptError, match="does not know 'dragon' in 'a red dragon'"):
        parse("a red dragon")


@pytest.mark.parametrize("prompt", ["", "red circle", "a circle a star", "two circle", "five stars", "a heart and"])
def test_sentences_outside_the_grammar_are_refused(prompt: str) -> None:
    assert try_parse(prompt) is None


def test_the_vocabulary_is_what_the_sentences_use() -> None:
    used = {word for spec in prompt_set(80, skills=ALL_SKILLS) for word in spec.prompt.split()}
    used |= {word for spec in prompt_set(80, split="train", skills=ALL_SKILLS) for word in spec.prompt.split()}
    assert used == VOCABULARY


@given(seeds)
def test_training_scenes_are_never_held_out_and_their_sentences_are_true(seed: int) -> None:
    rng = Random(seed)
    scene = random_scene(rng)
    assert not held_out(scene.things)
    spec = true_spec(scene, rng)
    named = sorted((noun.shape, noun.color) for noun in spec.include for _ in range(noun.count))
    shown = sorted((thing.shape, thing.color if spec.include[0].color else None) for thing in scene.things)
    assert named == shown
    if spec.relation:
        first, second = (
            next(t for t in scene.things if (t.shape, t.color) == (n.shape, n.color)) for n in spec.include
        )
        assert relation_between(first, second) == spec.relation


def test_about_a_tenth_is_held_out() -> None:
    pairs = [random_spec(Random(seed), "color_attr", "train") for seed in range(50)]
    held = [random_spec(Random(seed), "color_attr", "test") for seed in range(50)]
    assert not {frozenset(spec.include) for spec in pairs} & {frozenset(spec.include) for spec in held}


def test_prompt_sets_are_reproducible_and_distinct() -> None:
    specs = prompt_set(20, seed=3)
    assert specs == prompt_set(20, seed=3)
    assert len(specs) == 120
    assert len({spec.prompt for spec in specs if spec.skill == "position"}) == 20
    assert len({spec.prompt for spec in specs if spec.skill == "single_object"}) == 12
