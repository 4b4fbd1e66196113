"""VQAScore against github.com/linzhiqiu/t2v_metrics: CLIP-FlanT5 at 335e4c2 (version 3.0), Qwen2.5-VL at 6ecb74f."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from rewards import RewardError, load_reward
from rewards.testing import check_reward
from rewards.views import TOLERANCE, Square
from tests.rewards.standard.tiny import (
    CLIP_T5,
    GOLDENS,
    PROMPTS,
    clip_config,
    clip_t5_shapes,
    golden,
    noise,
    pictures,
    weights,
    write_t5_tokenizer,
    write_tokenizer,
)
from tests.rewards.standard.tiny_qwen import write_qwen


@pytest.fixture(scope="module")
def clip_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint, with its tower beside it in the folder "tower"."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    folder = tmp_path_factory.mktemp("clip_t5")
    write_t5_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(CLIP_T5))
    torch.save(weights(clip_t5_shapes(), 9), folder / "pytorch_model.bin")
    tower = folder / "tower"
    tower.mkdir()
    settings = clip_config("quick_gelu")
    (tower / "config.json").write_text(json.dumps(settings))
    with torch.device("meta"):
        model = CLIPVisionModel(CLIPVisionConfig(**settings["vision_config"]))
    shapes = {name.removeprefix("vision_model."): tuple(part.shape) for name, part in model.named_parameters()}
    named = {f"vision_model.{name}": part for name, part in weights(shapes, 8).items()}
    save_file(named | {"text_model.final_layer_norm.bias": torch.zeros(2)}, tower / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    write_qwen(folder, "qwen2_5_vl", 11)
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of transformers, which our code does not know by name: its own processor prepares it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    folder = tmp_path_factory.mktemp("llava")
    letters = [chr(code) for code in range(32, 127)]
    names = ["<unk>", "<s>", "</s>", "<image>", "<pad>", "Yes", *letters]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens(["<s>", "</s>", "<image>", "<pad>", "Yes"])
    write_tokenizer(tokenizer, folder, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    template = "USER: <image>\n{{ messages[0]['content'][1]['text'] }} ASSISTANT:"
    (folder / "chat_template.jinja").write_text(template)
    images = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "CLIPImageProcessor"} | images)
    )
    own = {"processor_class": "LlavaProcessor", "patch_size": 14, "vision_feature_select_strategy": "default"}
    (folder / "processor_config.json").write_text(json.dumps(own | {"num_additional_image_tokens": 1}))
    tower = clip_config()["vision_config"] | {"model_type": "clip_vision_model"}
    text = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": len(names), "max_position_embeddings": 4096,
    }  # fmt: skip
    settings = LlavaConfig(vision_config=tower, text_config=text, image_token_id=3, vision_feature_layer=-2)
    model = LlavaForConditionalGeneration(settings)
    shapes = {name: tuple(part.shape) for name, part in model.named_parameters()}
    model.load_state_dict(weights(shapes, 12), strict=False)
    model.save_pretrained(folder)
    return folder


def test_clip_flant5_is_that_of_the_original(clip_t5: Path) -> None:
    reward = load_reward("vqascore", checkpoint=clip_t5, tower=clip_t5 / "tower")
    assert reward(pictures(), PROMPTS).tolist() == pytest.approx(golden("clip_t5")["scores"], abs=1e-6, rel=1e-4)


def test_a_clip_flant5_with_its_own_tower_needs_no_other_weights(clip_t5: Path, tmp_path: Path) -> None:
    state = weights(clip_t5_shapes(), 9)
    from safetensors.torch import load_file

    for name, part in load_file(clip_t5 / "tower/model.safetensors").items():
        if name.startswith("vision_model."):
            state[f"vision_tower.vision_tower.{name}"] = part
    write_t5_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CLIP_T5))
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower/config.json").write_text(json.dumps(clip_config("quick_gelu")))
    reward = load_reward("vqascore", checkpoint=tmp_path, tower=tmp_path / "tower")
    assert reward(pictures()[:2], PROMPTS[:2]).tolist() == pytest.approx(golden("clip_t5")["scores"][:2], rel=1e-4)


def test_squares_are_those_of_the_original_to_the_byte() -> None:
    expected = np.load(GOLDENS / "squares.npz")
    view = Square(28, (122, 116, 104))
    for number, picture in enumerate(pictures()):
        square = (view.of_picture(picture).permute(1, 2, 0) * 255).round().byte().numpy()
        assert np.array_equal(square, expected[str(number)])
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
        assert (view.of_tensor(pixels)[0] - view.of_picture(picture)).abs().max() <= TOLERANCE


def test_qwen_is_that_of_the_original(qwen: Path) -> None:
    reward = load_reward("vqascore", checkpoint=qwen)
    assert reward(pictures(), PROMPTS).tolist() == pytest.approx(golden("vqascore_qwen")["scores"], abs=1e-7, rel=1e-4)


def test_qwen3_is_prepared_as_by_its_own_processor(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    from rewards.vlm import both_limits, load_vlm

    size = {"shortest_edge": 256 * 32 * 32, "longest_edge": 16384 * 32 * 32}
    half = [0.5, 0.5, 0.5]
    write_qwen(tmp_path, "qwen3_vl", 15, patch_size=16, size=size, image_mean=half, image_std=half)
    row = load_vlm(tmp_path, limits=both_limits).inputs(pictures()[1], "a")
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    seen = processor(pictures()[1].resize((96, 64), Image.Resampling.BICUBIC), return_tensors="pt")
    assert torch.equal(row["image_grid_thw"], seen["image_grid_thw"])
    assert torch.allclose(row["pixel_values"], seen["pixel_values"], atol=1e-6)
    reward = load_reward("vqascore", checkpoint=tmp_path)
    check_reward(reward, differentiable=True, tolerance=1e-5, prompts=PROMPTS[:2])


def test_llava_is_the_softmax_of_its_next_token(llava: Path) -> None:
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    reward = load_reward("vqascore", checkpoint=llava)
    processor = AutoProcessor.from_pretrained(llava, backend="pil")
    model = LlavaForConditionalGeneration.from_pretrained(llava).eval()
    text = 'USER: <image>\nDoes this figure show "a red cat"? Please answer Yes or No. ASSISTANT:'
    with torch.no_grad():
        logits = model(**processor(text=text, images=pictures()[0], return_tensors="pt")).logits[0, -1]
    assert reward(pictures()[:1], ["a red cat"]).item() == pytest.approx(logits.softmax(0)[5].item(), rel=1e-5)


def test_they_keep_the_contract(clip_t5: Path, qwen: Path, llava: Path) -> None:
    check_reward(
        load_reward("vqascore", checkpoint=clip_t5, tower=clip_t5 / "tower"), differentiable=True, tolerance=1e-5
    )
    check_reward(load_reward("vqascore", checkpoint=qwen), differentiable=True, tolerance=1e-5)
    check_reward(load_reward("vqascore", checkpoint=llava), differentiable=False, tolerance=1e-5)


def test_scores_with_gradients_are_near_those_without(clip_t5: Path, qwen: Path) -> None:
    pixels = torch.from_numpy(np.array(noise(97, 61, 5))).permute(2, 0, 1)[None] / 255
    for options in ({"checkpoint": clip_t5, "tower": clip_t5 / "tower"}, {"checkpoint": qwen}):
        reward = load_reward("vqascore", **options)
        exact, smooth = reward(pixels, ["a"]), reward(pixels.clone().requires_grad_(), ["a"]).detach()
        assert abs(smooth / exact - 1) < 0.02


def test_another_question_and_another_answer(qwen: Path) -> None:
    picture = pictures()[:1]
    plain = load_reward("vqascore", checkpoint=qwen)(picture, ["a"])
    other = load_reward("vqascore", checkpoint=qwen, question="Is it {}?")(picture, ["a"])
    longer = load_reward("vqascore", checkpoint=qwen, answer="No")(picture, ["a"])  # two tokens here
    assert len({round(score.item(), 9) for score in (plain, other, longer)}) == 3
    with pytest.raises(RewardError, match="where the prompt goes"):
        load_reward("vqascore", checkpoint=qwen, question="Is it?")


def test_odd_pictures_and_prompts(qwen: Path) -> None:
    reward = load_reward("vqascore", checkpoint=qwen)
    grey = noise(40, 30, 7).convert("L")
    scores = reward([grey, noise(1, 1, 3), grey.convert("P")], ["a"] * 3)
    assert scores[0] == reward([grey.convert("RGB")], ["a"])[0]
    with pytest.raises(RewardError, match="at most 200 times the other"):
        reward([Image.new("RGB", (4000, 10))], ["a"])
    with pytest.raises(RewardError, match="marks a picture's place"):
        reward([grey], ["<|image_pad|>"])


def test_missing_weights_are_refused(qwen: Path, tmp_path: Path) -> None:
    write_qwen(tmp_path, "qwen2_5_vl", 11)
    from safetensors.torch import load_file

    state = load_file(tmp_path / "model.safetensors")
    del state["lm_head.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(RewardError, match=r"1 weights in .* are missing or of another shape, for example 'lm_head"):
        load_reward("vqascore", checkpoint=tmp_path)
