"""Every recorded number of the official implementation, repeated with ours."""

import json

import numpy as np
import pytest
import torch

from rewards.llava.hd_transform import hd_size
from rewards.llava.layouts import llava_next_inputs
from rewards.llava.phi3v import visual_count
from tests.rewards.llava.cases import (
    CASES,
    GOLDENS,
    MANIFEST,
    SIDES,
    Library,
    arrays,
    inputs_of,
    picture,
    prompts_of,
    run,
    tokens_of,
    tolerance,
)


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_prompts_and_tokens(library: Library, name: str, side: str) -> None:
    case = CASES[name]
    model = library.model(case["adapter"])
    inputs, recorded = inputs_of(model, case), arrays(case, side)
    tokens = tokens_of(model, case, side)
    assert [inputs.text(prompt) for prompt in prompts_of(case, side)] == case["prompts"][side]
    assert torch.equal(tokens.ids, recorded["input_ids"].long())
    assert torch.equal(tokens.mask, recorded["attention_mask"].bool())
    sizes = torch.tensor([seen.size for seen in tokens.pictures])
    expected = recorded["image_grid_thw"][:, 1:] if case["backbone"] == "qwen" else recorded["image_sizes"]
    assert torch.equal(sizes, expected.long())


@pytest.mark.parametrize("name", list(CASES))
def test_official_numbers(library: Library, name: str) -> None:
    case = CASES[name]
    model = library.model(case["adapter"])
    outputs = {}
    for side in case["sides"]:
        recorded = arrays(case, side)
        ours = run(model, case, tokens_of(model, case, side), official=True)
        _close(_first_and_last(ours.visual, case["backbone"]), recorded["vision_rows"], "vision_rows")
        _close(ours.last, recorded["lm_hidden_eos"], "lm_hidden_eos")
        _close(ours.head_input, recorded["head_input_eos"], "head_input_eos")
        _close(ours.outputs, recorded["reward"], "reward")
        outputs[side] = ours.outputs
    probability = _probability(outputs, model.checkpoint.settings.general_preference_tau)
    with np.load(GOLDENS / case["file"]) as file:
        recorded_probability = torch.from_numpy(file["x_probability" if "x" in outputs else "probability"])
    _close(probability.flatten(), recorded_probability.flatten(), "probability")


@pytest.mark.parametrize(
    ("name", "side"), [pair for pair in SIDES if "reward_alone" in arrays(CASES[pair[0]], pair[1])]
)
def test_a_masked_batch_gives_what_the_official_code_gives_one_by_one(library: Library, name: str, side: str) -> None:
    """Also where the published code lets a batch change its rows: dilution, long factors, pad embeddings."""
    case = CASES[name]
    model = library.model(case["adapter"])
    recorded = arrays(case, side)
    tokens = tokens_of(model, case, side, "right")
    if case["backbone"] == "qwen" and model.head.skipca:  # alone, the published Qwen head sees nothing
        ours = run(model, case, tokens, official=False)
        outputs = model.head.value_head(model.head.ca_layernorm(ours.last))
    else:
        outputs = run(model, case, tokens, official=False).outputs
    _close(outputs, recorded["reward_alone"].view_as(outputs), "reward")


@pytest.mark.parametrize("name", list(MANIFEST["pixels"]))
def test_pixels(name: str) -> None:
    family, image, *option = name.split(".")
    with np.load(GOLDENS / "pixels.npz") as file:
        recorded = {
            part: torch.from_numpy(file[f"{name}:{part}"]) for part in ("sub", "mean") if f"{name}:{part}" in file
        }
    pixels = _preprocessed(family, image, option)
    shape = MANIFEST["pixels"][name]["shape"]
    limits = tolerance(f"pixel_values.{family}")
    if family == "qwen":
        assert list(pixels.shape) == shape
        torch.testing.assert_close(pixels[::16, ::8], recorded["sub"], **limits)
        return
    pixels = torch.cat([pixels, pixels.new_zeros(shape[0] - len(pixels), *pixels.shape[1:])])  # the official padding
    assert list(pixels.shape) == shape
    torch.testing.assert_close(pixels[..., ::48, ::48], recorded["sub"], **limits)
    torch.testing.assert_close(pixels.double().mean((1, 2, 3)), recorded["mean"], **limits)


def test_phi_sizes() -> None:
    for size in json.loads((GOLDENS / "processor/phi3v_sizes.json").read_text()):
        sides = size["width"], size["height"]
        wide, _, high = hd_size(max(sides), min(sides), size["num_crops"])
        padded = (high, wide) if sides[0] >= sides[1] else (wide, high)
        assert list(padded) == size["image_size_h_w"], size
        assert visual_count(padded) == size["num_img_tokens"], size


def _preprocessed(family: str, image: str, option: list[str]) -> torch.Tensor:
    from rewards.llava.hd_transform import hd_transform
    from rewards.llava.qwen_resize import qwen_picture

    if family == "phi3v":
        return hd_transform(picture(image), num_crops=int(option[0].removeprefix("crops"))).pixels
    if family == "qwen":  # limits of the base model's preprocessor_config.json
        return qwen_picture(picture(image), limits=(3136, 12845056)).pixels
    folder = GOLDENS / "llava/base"
    config, settings = (json.loads((folder / f"{name}config.json").read_text()) for name in ("", "preprocessor_"))
    return llava_next_inputs(None, config, settings).picture(picture(image)).pixels


def _first_and_last(visual: list[torch.Tensor], backbone: str) -> torch.Tensor:
    """The rows that are recorded: of all samples in a row, Phi's padded to the longest."""
    padded = torch.nn.utils.rnn.pad_sequence(visual, batch_first=True).flatten(0, 1)
    rows = padded if backbone == "phi3v" else torch.cat(visual)
    return torch.cat([rows[:4], rows[-4:]])


def _probability(outputs: dict[str, torch.Tensor], tau: float) -> torch.Tensor:
    """What the published evaluation prints, by its own formulas."""
    if "x" in outputs:
        return outputs["x"].sigmoid()
    chosen, rejected = outputs["c"], outputs["r"]
    if chosen.shape[1] == 2:
        return ((chosen[:, 0] * rejected[:, 1] - chosen[:, 1] * rejected[:, 0]) / tau).sigmoid()
    return ((chosen - rejected) / tau).sigmoid()


def _close(ours: torch.Tensor, recorded: torch.Tensor, name: str) -> None:
    torch.testing.assert_close(ours, recorded, **tolerance(name))
