"""CLIPScore against OpenAI's CLIP (d05afc4), PickScore against its README's calculation in transformers."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rewards import RewardError, load_reward
from rewards.clip import clean
from rewards.fingerprints import fingerprint
from rewards.open_clip import renamed
from rewards.testing import check_reward
from rewards.views import TOLERANCE, CentreCrop
from rewards.vision import VisionReward
from tests.rewards.standard.tiny import (
    GOLDENS,
    PROMPTS,
    clip_config,
    golden,
    noise,
    open_clip_shapes,
    pictures,
    weights,
    write_clip_tokenizer,
)


@pytest.fixture(scope="module")
def openai(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OpenAI's names turned into transformers', as on the hub."""
    folder = tmp_path_factory.mktemp("clip")
    write_clip_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(clip_config("quick_gelu")))
    state = weights(open_clip_shapes(), 3)
    named = {new: part.contiguous() for name, tensor in state.items() for new, part in renamed(name, tensor)}
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}  # older files have them
    save_file(named | positions, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def clipscore(openai: Path) -> VisionReward:
    reward = load_reward("clipscore", checkpoint=openai)
    assert isinstance(reward, VisionReward)
    return reward


@pytest.fixture(scope="module")
def pickscore(tmp_path_factory: pytest.TempPathFactory) -> VisionReward:
    from transformers import CLIPConfig, CLIPModel

    folder, words = tmp_path_factory.mktemp("pickscore"), tmp_path_factory.mktemp("words")
    write_clip_tokenizer(words)
    (folder / "config.json").write_text(json.dumps(clip_config()))
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(**clip_config()))
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    torch.save(weights(shapes, 4), folder / "pytorch_model.bin")
    reward = load_reward("pickscore", checkpoint=folder, tokenizer=words)
    assert isinstance(reward, VisionReward)
    return reward


def test_clipscore_is_that_of_openais_clip(clipscore: VisionReward) -> None:
    assert clipscore(pictures(), PROMPTS).tolist() == pytest.approx(golden("clipscore")["scores"], abs=1e-4)


def test_tokens_are_those_of_openais_clip(clipscore: VisionReward) -> None:
    ids, ends = clipscore.network.clip.tokens([clean(prompt) for prompt in PROMPTS])  # type: ignore[attr-defined]
    found = [row[: end + 1].tolist() for row, end in zip(ids, ends, strict=True)]
    assert found == golden("clipscore")["ids"]
    assert max(map(len, found)) == 77  # the longest prompt is cut there


def test_pickscore_is_that_of_its_readme(pickscore: VisionReward) -> None:
    expected = golden("pickscore")["scores"]
    assert pickscore(pictures(), PROMPTS).tolist() == pytest.approx(expected, abs=1e-4)
    assert max(map(abs, expected)) > 20  # the learned scale is on


def test_crops_are_those_of_torchvision_and_transformers_to_the_byte() -> None:
    expected = np.load(GOLDENS / "crops.npz")
    for odd in ("rounded", "floored"):
        for number, picture in enumerate(pictures()):
            assert np.array_equal(as_bytes(CentreCrop(28, odd).of_picture(picture)), expected[f"{odd}{number}"])
    assert not np.array_equal(expected["rounded3"], expected["floored3"])  # three pixels too many: two ways to halve


@pytest.mark.parametrize(("odd", "name"), [("rounded", "clipscore"), ("floored", "pickscore")])
def test_crops_at_full_size_are_the_same_to_the_byte(odd: str, name: str) -> None:
    crop = as_bytes(CentreCrop(224, odd).of_picture(noise(400, 301, 9)))  # type: ignore[arg-type]
    assert hashlib.sha256(crop.tobytes()).hexdigest() == golden(name)["crop_of_224"]


@pytest.mark.parametrize("size", [(97, 61), (61, 97), (28, 28), (31, 28), (20, 16), (1, 1), (200, 300)])
def test_the_view_of_tensors_is_within_its_tolerance(size: tuple[int, int]) -> None:
    picture = noise(*size, 5)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    for view in (CentreCrop(28), CentreCrop(28, "floored")):
        assert (view.of_tensor(pixels)[0] - view.of_picture(picture)).abs().max() <= TOLERANCE


def test_scores_with_gradients_are_near_those_without(clipscore: VisionReward) -> None:
    pixels = torch.from_numpy(np.array(noise(97, 61, 5))).permute(2, 0, 1)[None] / 255
    exact = clipscore(pixels, PROMPTS[:1])
    smooth = clipscore(pixels.clone().requires_grad_(), PROMPTS[:1])
    assert abs(exact - smooth.detach()) < 5e-3
    assert exact != smooth.detach()  # two computations


def test_they_keep_the_contract(clipscore: VisionReward, pickscore: VisionReward) -> None:
    check_reward(clipscore, differentiable=True)
    check_reward(pickscore, differentiable=True, tolerance=5e-4)  # scores of tens in float32


def test_odd_pictures_are_scored_as_their_rgb(clipscore: VisionReward) -> None:
    base = noise(40, 30, 7)
    grey, palette, wide = base.convert("L"), base.convert("P"), noise(4000, 10, 1)
    clear = base.convert("RGBA")
    clear.putalpha(0)
    odd = [grey, palette, clear, noise(1, 1, 2), wide]
    scores = clipscore(odd, ["a cat"] * 5)
    plain = [grey.convert("RGB"), palette.convert("RGB"), base, noise(1, 1, 2), wide]
    assert torch.allclose(scores, clipscore(plain, ["a cat"] * 5), atol=1e-6)
    with pytest.raises(RewardError, match="at least one PIL image"):
        clipscore([], [])


def test_batches_and_dtypes_and_bad_options(openai: Path, clipscore: VisionReward) -> None:
    expected = clipscore(pictures(), PROMPTS)
    small = load_reward("clipscore", checkpoint=openai, batch_size=2)
    assert torch.allclose(small(pictures(), PROMPTS), expected, atol=1e-5)
    rough = load_reward("clipscore", checkpoint=openai, dtype="bfloat16")
    assert torch.allclose(rough(pictures(), PROMPTS), expected, atol=0.02)
    with pytest.raises(RewardError, match="batch_size 0"):
        load_reward("clipscore", checkpoint=openai, batch_size=0)
    with pytest.raises(RewardError, match="expected a string"):
        clipscore(pictures()[:1], [3])  # type: ignore[list-item]


def test_memory_that_runs_out_halves_the_batch(openai: Path, clipscore: VisionReward) -> None:
    small = load_reward("clipscore", checkpoint=openai, batch_size=7)
    assert isinstance(small, VisionReward)
    honest, sizes = small.network.score, []

    def at_most_two(pixels: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("full")
        return honest(pixels, text)

    object.__setattr__(small.network, "score", at_most_two)
    assert torch.allclose(small(pictures(), PROMPTS), clipscore(pictures(), PROMPTS), atol=1e-5)
    assert sizes == [7, 4, 2, 2, 2, 1]


def as_bytes(view: torch.Tensor) -> np.ndarray:
    return (view.permute(1, 2, 0) * 255).round().byte().numpy()


def test_the_revision_tells_weights_and_settings_apart(openai: Path, tmp_path: Path) -> None:
    again = load_reward("clipscore", checkpoint=openai)
    assert isinstance(again, VisionReward)
    assert len(again.revision) == 12
    assert again.revision == VisionReward("x", again.network, again.view, files=[openai / "model.safetensors"]).revision
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(1 << 25))
    before = fingerprint([large], "")
    assert fingerprint([large], "other") != before
    with large.open("r+b") as file:
        file.seek((1 << 25) // 256 * 200)  # where one of the samples lies
        file.write(b"1")
    assert fingerprint([large], "") != before
