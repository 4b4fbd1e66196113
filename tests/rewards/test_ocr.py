"""Text rendering: distances done by hand, prompts that quote, and pictures with words that are really read."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from rewards import load_reward
from rewards.errors import RewardError
from rewards.ocr import OcrReward, distance, quoted, rendering
from rewards.testing import check_reward

needs_reader = pytest.mark.skipif(
    not (find_spec("rapidocr") and find_spec("onnxruntime")), reason="the extra [ocr] is not installed"
)
WORDS = (
    "open", "coffee", "bakery", "welcome", "library", "station", "garden", "pizza", "museum", "hotel",
    "market", "flowers", "sunday", "winter", "danger", "kitchen", "travel", "summer", "orange", "silver",
    "planet", "rocket", "forest", "bridge", "castle",
)  # fmt: skip


def drawn(text: str, size: tuple[int, int] = (256, 96), colour: str = "black") -> Image.Image:
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).text((20, 24), text, fill=colour, font=ImageFont.load_default(36))
    return picture


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("saturday", "sunday", 3), ("open", "opne", 2)],
)
def test_distances_of_the_textbooks(one: str, other: str, expected: int) -> None:
    assert distance(one, other) == distance(other, one) == expected


@given(st.text("ab", max_size=6), st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_the_distance_is_a_metric(one: str, other: str, third: str) -> None:
    assert (distance(one, other) == 0) == (one == other)
    assert distance(one, third) <= distance(one, other) + distance(other, third)
    assert abs(len(one) - len(other)) <= distance(one, other) <= max(len(one), len(other))


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("a sign that says 'OPEN'", ["OPEN"]),
        ('a "Grand  Opening" banner and a "SALE" tag', ["Grand  Opening", "SALE"]),
        ("the dog's mug with “don't panic”", ["don't panic"]),
        ("the dog's mug with 'DON'T PANIC' on it", ["DON'T PANIC"]),
        ("ein Schild mit „Offen“ und «Zu»", ["Offen", "Zu"]),
        ("a shirt saying ‘don’t panic’ in red", ["don’t panic"]),
    ],
)
def test_quoted_texts_are_found(prompt: str, texts: list[str]) -> None:
    assert quoted(prompt) == texts


@pytest.mark.parametrize("prompt", ["a red circle", "the dogs' bone and the cats' milk", 'a blank sign: ""', "' '"])
def test_a_prompt_that_quotes_nothing_is_refused(prompt: str) -> None:
    with pytest.raises(RewardError, match="quotes no text"):
        quoted(prompt)


@pytest.mark.parametrize(
    ("texts", "words", "score"),
    [
        (["OPEN"], ["open"], 1),
        (["OPEN"], [], 0),
        (["OPEN"], ["openn"], 3 / 4),  # a letter too many is no rendering of it
        (["OPEN"], ["opne"], 1 / 2),
        (["OPEN"], ["since", "1920", "OPEN", "daily"], 1),  # other words cost nothing
        (["Grand Opening"], ["the", "GRANDOPENING"], 1),  # spaces are not compared
        (["Grand Opening"], ["grand", "open", "ing"], 1),
        (["cat"], ["entirely different"], 0),
        (["ab", "wxyz"], ["ab", "wxy"], 1 - 1 / 6),  # a long text counts for more
    ],
)
def test_scores_by_hand(texts: list[str], words: list[str], score: float) -> None:
    assert rendering(texts, words) == pytest.approx(score)


def test_every_candidate_has_its_own_prompt_and_other_prompts_are_refused() -> None:
    reward = OcrReward(lambda picture: ["red"] if picture.getpixel((0, 0)) == (255, 0, 0) else ["blue"])
    pictures = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    assert reward(pictures, ['"red"', '"red"']).tolist() == [1.0, 0.0]
    with pytest.raises(RewardError, match="a plain prompt"):
        reward(pictures, ['"red"', "a plain prompt"])


@pytest.mark.parametrize("options", [{"side": 8}, {"threads": -1}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RewardError, match="expected a side"):
        load_reward("ocr", **options)


def test_a_missing_reader_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewards.ocr.find_spec", lambda name: None)
    with pytest.raises(RewardError, match=r"pip install 'bon-search\[ocr\]'"):
        load_reward("ocr")


@pytest.fixture(scope="module")
def reward() -> OcrReward:
    made = load_reward("ocr", side=160, threads=1)
    assert isinstance(made, OcrReward)
    return made


@needs_reader
def test_rendered_text_beats_its_misspelling_on_a_few_pictures(reward: OcrReward) -> None:
    words = ("OPEN", "COFFEE")
    pictures = [drawn(text) for word in words for text in (word, misspelt(word, 0))]
    scores = reward(pictures, [f"a sign that says '{word}'" for word in words for _ in range(2)])
    assert scores[0::2].tolist() == [1.0, 1.0]
    assert bool((scores[1::2] < 1).all())


@needs_reader
def test_contract(reward: OcrReward) -> None:
    check_reward(reward, prompts=['"a"', '"b"'], size=32, differentiable=False)


@needs_reader
def test_pictures_of_any_size_and_mode_are_read(reward: OcrReward) -> None:
    pictures = [Image.new("L", (1, 1)), Image.new("RGBA", (2000, 10)), drawn("OPEN").convert("P")]
    assert reward(pictures, ['"open"'] * 3).tolist() == [0.0, 0.0, 1.0]


@needs_reader
def test_rendered_text_beats_its_misspelling_on_fifty_pictures(reward: OcrReward) -> None:
    """25 words, each written rightly and wrongly, in changing size and colour."""
    texts = [text for number, word in enumerate(WORDS) for text in (word, misspelt(word, number))]
    colours = ("black", "navy", "darkred", "purple", "darkgreen")
    pictures = [drawn(text, (240 + 8 * (k // 10), 96), colours[k // 2 % 5]) for k, text in enumerate(texts)]
    prompts = [f'a shop window with the word "{word}"' for word in WORDS for _ in range(2)]
    right, wrong = reward(pictures, prompts).reshape(-1, 2).unbind(1)
    assert bool((right > wrong).all()), [WORDS[k] for k in torch.nonzero(right <= wrong).flatten()]
    assert right.mean() > 0.99


def misspelt(word: str, kind: int) -> str:
    """The word with a letter in its middle replaced, left out or doubled, or two of them exchanged."""
    place = len(word) // 2
    before, letter, after = word[:place], word[place], word[place + 1 :]
    exchanged = before + after[0] + letter + after[1:] if after[0] != letter else before + after
    return (before + "x" + after, before + after, before + letter + letter + after, exchanged)[kind % 4]
