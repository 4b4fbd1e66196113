"""UnifiedReward: how numbers are read off what a model writes, and a tiny Qwen2.5-VL that writes nonsense."""

import math
from pathlib import Path

import pytest
import torch

from rewards import RewardError, load_reward
from rewards.testing import check_reward
from rewards.unifiedreward import FORMS, Written, expected_number, number_behind, write
from rewards.vlm import both_limits, load_vlm
from tests.rewards.standard.tiny import PROMPTS, golden, pictures
from tests.rewards.standard.tiny_qwen import token, write_qwen

DIGITS = tuple(range(10))  # token numbers of the digits in the hand-made cases; 10 is ".", 11 any other word


def written(pieces: list[str], chances: dict[int, dict[int, float]]) -> Written:
    """What was written, piece by piece, and the probabilities of digits at some of the places."""
    ids = [int(piece) if piece.isdigit() else 10 if piece == "." else 11 for piece in pieces]
    logits = torch.full((len(pieces), 12), -30.0)
    for place, row in chances.items():
        for digit, chance in row.items():
            logits[place, digit] = math.log(chance)
    return Written(torch.tensor(ids), logits, tuple(pieces))


def test_a_digit_is_read_as_its_expected_value() -> None:
    answer = written(["cat (object): ", "1", "\nFinal Score:", " ", "4"], {4: {3: 0.2, 4: 0.5, 5: 0.1}})
    number = number_behind(answer, "Final Score:", DIGITS)
    assert number is not None
    assert number.item() == pytest.approx((3 * 0.2 + 4 * 0.5 + 5 * 0.1) / 0.8)


def test_decimals_are_read_too_and_zero_to_nine_count() -> None:
    chances = {1: {2: 1.0}, 3: {6: 0.5, 0: 0.5}, 4: {9: 1.0}, 5: {9: 1.0}}
    answer = written(["Style Score (1-5): ", "2", ".", "6", "9", "4", "7"], chances)
    assert number_behind(answer, "Style Score (1-5):", DIGITS).item() == pytest.approx(2 + 0.3 + 0.09)  # type: ignore[union-attr]


def test_digits_before_the_label_or_in_it_are_no_scores() -> None:
    answer = written(["5", " Alignment Score (1-5):", "3"], {0: {5: 1.0}, 2: {3: 1.0}})
    assert number_behind(answer, "Alignment Score (1-5):", DIGITS) == expected_number(answer, 2, DIGITS)
    assert number_behind(answer, "Style Score (1-5):", DIGITS) is None
    assert number_behind(written(["3", "Final Score:"], {}), "Final Score:", DIGITS) is None


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unified")
    write_qwen(folder, "qwen2_5_vl", 11, min_pixels=3136, max_pixels=28 * 28 * 8)
    return folder


def test_a_label_that_is_missing_is_written_and_the_digits_behind_it_weighed(qwen: Path) -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration

    reward = load_reward("unifiedreward", checkpoint=qwen, tokens=3)
    score = reward(pictures()[:1], ["a red cat"]).item()
    vlm = load_vlm(qwen, limits=both_limits)
    inputs = vlm.inputs(pictures()[0], FORMS["score"].question.replace("{}", "a red cat"))
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(qwen).eval()
    with torch.no_grad():
        said = model.generate(**inputs, max_new_tokens=3, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()
        answer = [one for one in said if one != token("<|im_end|>")] + vlm.encode("\nFinal Score: ")
        row = vlm.inputs(pictures()[0], FORMS["score"].question.replace("{}", "a red cat"), answer)
        logits = model(**row).logits[0, -1]
    chances = logits[[token(digit) for digit in "12345"]].softmax(0)
    whole = sum(digit * chance for digit, chance in enumerate(chances.tolist(), start=1))
    assert score == pytest.approx(whole, abs=1e-4)  # a random model writes no decimals
    assert 1 < score < 5


def test_it_keeps_the_contract(qwen: Path) -> None:
    check_reward(
        load_reward("unifiedreward", checkpoint=qwen, tokens=2), differentiable=False, prompts=PROMPTS[:2], size=32
    )


def test_three_scores_are_averaged(qwen: Path) -> None:
    score = load_reward("unifiedreward:acs", checkpoint=qwen, tokens=2)(pictures()[:1], ["a"])
    assert 1 < score.item() < 5
    assert score.item() != load_reward("unifiedreward", checkpoint=qwen, tokens=2)(pictures()[:1], ["a"]).item()
    with pytest.raises(RewardError, match="Expected unifiedreward:score or unifiedreward:acs"):
        load_reward("unifiedreward:think", checkpoint=qwen)


def test_it_writes_what_the_original_script_generates(qwen: Path) -> None:
    """github.com/CodeGoat24/UnifiedReward at ff6f520, inference_qwen/image_generation."""
    vlm = load_vlm(qwen, limits=both_limits)
    digits = [token(digit) for digit in "12345"]
    for case, picture, prompt in zip(golden("unifiedreward")["cases"], pictures(), PROMPTS, strict=False):
        question = FORMS["score"].question.replace("{}", prompt)
        inputs = vlm.inputs(picture, question)
        assert inputs["image_grid_thw"][0].tolist() == case["grid"]
        assert inputs["pixel_values"].double().abs().sum().item() == pytest.approx(case["pixels"], abs=1e-2)
        with torch.no_grad():
            answer = write(vlm, picture, question, (), 6)
        assert answer.ids.tolist() == case["ids"]
        counted = torch.arange(1.0, 6.0)
        expected = [(row[digits].softmax(0) * counted).sum().item() for row in answer.logits]
        assert expected == pytest.approx(case["expected"], abs=1e-4)
