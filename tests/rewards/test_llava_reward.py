"""LlavaReward on an untrained LLaVA of a few thousand parameters: arithmetic, not taste."""

import json
from pathlib import Path

import pytest
import torch

from rewards import load_reward
from rewards.errors import CheckpointError, RewardError
from rewards.llava.checkpoint import Checkpoint, Settings, build_head, load_checkpoint, save_checkpoint
from rewards.llava.images import ImageSettings, preprocess
from rewards.llava.prompts import encode
from rewards.testing import PROMPTS, check_reward

IMAGE = ImageSettings(16, (0.5, 0.4, 0.3), (0.5, 0.6, 0.7))
WORDS = ["<unk>", "<s>", "</s>", "<image>", *sorted({word for prompt in PROMPTS for word in prompt.split()})]


def tiny_tokenizer() -> object:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>",
        extra_special_tokens=["<image>"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved checkpoint with random weights: 4 image tokens, width 32."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=24, image_size=16, patch_size=8, projection_dim=24, **shape),
        text_config=LlamaConfig(vocab_size=len(WORDS), hidden_size=32, pad_token_id=None, **shape),
        image_token_index=3, image_seq_length=4, vision_feature_layer=-1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    settings = Settings("<s><image>{prompt}</s>", IMAGE)
    head = build_head(32, settings)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(path, Checkpoint(model, tiny_tokenizer(), head, settings))
    return path


def test_it_keeps_the_contract(folder: Path) -> None:
    check_reward(load_reward("llava-reward", checkpoint=folder), size=16, differentiable=True)


def test_micro_batches_do_not_change_a_score(folder: Path) -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    at_once = load_reward("llava-reward", checkpoint=folder, batch_size=4)(images, PROMPTS)
    by_three = load_reward("llava-reward", checkpoint=folder, batch_size=3)(images, PROMPTS)
    torch.testing.assert_close(at_once, by_three, rtol=1e-5, atol=1e-5)
    assert at_once.std() > 0.01


def test_a_score_is_the_head_on_the_last_token_and_the_projected_picture(folder: Path) -> None:
    parts = load_checkpoint(folder)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    words = [WORDS.index(word) for word in PROMPTS[0].split()]
    ids = torch.tensor([[1, 3, 3, 3, 3, *words, 2]])
    pixels = preprocess(image, IMAGE)
    with torch.no_grad():
        model = parts.model.eval().model
        tower = model.vision_tower(pixels, output_hidden_states=True)
        visual = model.multi_modal_projector(tower.hidden_states[-1][:, 1:])  # patches without the class token
        embedded = parts.model.get_input_embeddings()(ids)
        embedded[:, 1:5] = visual
        states = model.language_model(inputs_embeds=embedded).last_hidden_state
        expected = parts.head(states[:, -1], visual)
    actual = load_reward("llava-reward", checkpoint=folder)(image, [PROMPTS[0]])
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_saved_and_loaded_it_is_the_same(folder: Path, tmp_path: Path) -> None:
    parts = load_checkpoint(folder)
    save_checkpoint(tmp_path / "copy", parts)
    again = load_checkpoint(tmp_path / "copy")
    assert again.settings == parts.settings
    for name, tensor in {**parts.model.state_dict(), **parts.head.state_dict()}.items():
        assert torch.equal(tensor, {**again.model.state_dict(), **again.head.state_dict()}[name]), name
    assert not list((tmp_path / "copy").glob("*.bin"))


def test_the_revision_follows_the_weights(folder: Path, tmp_path: Path) -> None:
    parts = load_checkpoint(folder)
    save_checkpoint(tmp_path / "other", parts)
    same = load_reward("llava-reward", checkpoint=tmp_path / "other")
    with torch.no_grad():
        parts.head.value_head.weight[0, 0] += 1
    save_checkpoint(tmp_path / "other", parts)
    changed = load_reward("llava-reward", checkpoint=tmp_path / "other")
    assert same.revision != changed.revision  # type: ignore[attr-defined]


def test_prompts_are_padded_on_the_right_and_read_at_their_own_end(folder: Path) -> None:
    encoded = encode(["a red circle", "three pink hearts and a heart"], tiny_tokenizer(), "<s><image>{prompt}</s>", 4)
    assert encoded.ids[0, :5].tolist() == [1, 3, 3, 3, 3]
    assert encoded.mask.sum(1).tolist() == [9, 12]
    assert encoded.last.tolist() == [8, 11]
    assert encoded.ids.gather(1, encoded.last[:, None]).eq(2).all()


@pytest.mark.parametrize("prompt", ["", "   ", "a red circle</s>", "<image> of a circle"])
def test_prompts_that_would_break_the_template_are_refused(folder: Path, prompt: str) -> None:
    with pytest.raises(RewardError, match="prompt"):
        load_reward("llava-reward", checkpoint=folder)(torch.zeros(1, 3, 16, 16), [prompt])


def test_pictures_are_resized_cut_and_normalised() -> None:
    wide = torch.zeros(1, 3, 16, 48)
    wide[..., 16:32] = 1  # the middle third survives the cut
    expected = torch.tensor([1.0, 1.0, 1.0])
    assert torch.allclose(preprocess(wide, IMAGE)[0].mean((1, 2)), expected)
    halved = preprocess(torch.full((1, 3, 32, 32), 0.25), IMAGE)
    assert halved.shape == (1, 3, 16, 16)
    assert torch.allclose(halved[0, :, 8, 8], torch.tensor([-0.5, -0.25, -0.05 / 0.7]), atol=1e-6)


def test_a_folder_that_is_no_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no reward\.json"):
        load_reward("llava-reward", checkpoint=tmp_path)
    (tmp_path / "reward.json").write_text(json.dumps({"template": "x"}))
    with pytest.raises(CheckpointError, match="damaged"):
        load_reward("llava-reward", checkpoint=tmp_path)
    (tmp_path / "reward.json").write_bytes((folder / "reward.json").read_bytes())
    with pytest.raises(CheckpointError, match="damaged"):
        load_reward("llava-reward", checkpoint=tmp_path)


@pytest.mark.parametrize("options", [{"dtype": "float8"}, {"device": "toaster"}, {"batch_size": 0}])
def test_options_that_cannot_be_met_are_refused(folder: Path, options: dict[str, object]) -> None:
    with pytest.raises(RewardError, match=str(next(iter(options.values())))):
        load_reward("llava-reward", checkpoint=folder, **options)


def test_bfloat16_stays_near(folder: Path) -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    exact = load_reward("llava-reward", checkpoint=folder)(images, PROMPTS)
    rounded = load_reward("llava-reward", checkpoint=folder, dtype="bfloat16")(images, PROMPTS)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.1 * exact.abs().max() + 0.05
