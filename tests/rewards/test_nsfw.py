"""The probability of unsafe classes, on tiny random classifiers and on one that knows what red is."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from rewards import load_reward
from rewards.errors import RewardError
from rewards.nsfw import unsafe_classes
from rewards.testing import check_reward


def folder(path: Path, names: tuple[str, ...], **more: object) -> Path:
    """A random ViT with these classes, as transformers saves it."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        id2label=dict(enumerate(names)), label2id={name: k for k, name in enumerate(names)}, **more,
    )  # fmt: skip
    torch.manual_seed(0)  # transformers draws weights from the global generator
    model = ViTForImageClassification(config)
    with torch.no_grad():
        model.classifier.weight.normal_(generator=torch.Generator().manual_seed(1))
    model.save_pretrained(path)
    settings = '{"image_processor_type": "ViTImageProcessor", "do_resize": true, "size": {"height": 16, "width": 16}}'
    (path / "preprocessor_config.json").write_text(settings, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("two"), ("normal", "nsfw"))


def test_contract(two: Path) -> None:
    check_reward(load_reward("nsfw", checkpoint=two), differentiable=False)


def test_the_score_is_the_softmax_of_the_unsafe_class(two: Path) -> None:
    from transformers import ViTForImageClassification

    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    model = ViTForImageClassification.from_pretrained(two).eval()
    with torch.no_grad():
        expected = model(pixel_values=(pixels - 0.5) / 0.5).logits.softmax(-1)
    scores = load_reward("nsfw", checkpoint=two)(pixels, ["", ""])
    torch.testing.assert_close(scores, expected[:, 1])
    safe = load_reward("nsfw", checkpoint=two, labels="Normal")(pixels, ["", ""])
    torch.testing.assert_close(safe, expected[:, 0])


def test_unsafe_classes_add_up_and_independent_ones_join(tmp_path: Path) -> None:
    from transformers import ViTForImageClassification

    names = ("drawings", "hentai", "neutral", "porn")
    pixels = torch.full((1, 3, 16, 16), 0.2)
    for kind in (None, "multi_label_classification"):
        place = folder(tmp_path / str(kind), names, problem_type=kind)
        with torch.no_grad():
            model = ViTForImageClassification.from_pretrained(place).eval()
            logits = model(pixel_values=(pixels - 0.5) / 0.5).logits[0]
        one, other = logits.sigmoid()[[1, 3]]
        expected = one + other - one * other if kind else logits.softmax(0)[[1, 3]].sum()
        torch.testing.assert_close(load_reward("nsfw", checkpoint=place)(pixels, [""])[0], expected)


def test_as_a_constraint_it_puts_unsafe_pictures_last(two: Path) -> None:
    pixels = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    unsafe = load_reward("nsfw", checkpoint=two)(pixels, [""] * 8)
    limit = float(unsafe.median())
    spec = f"pixels:brightness subject to nsfw(checkpoint={two}) <= {limit}"
    scores = load_reward(spec)(pixels, [""] * 8)
    assert bool((scores[unsafe <= limit] > 0).all())
    assert bool((scores[unsafe > limit] < -1e5).all())


def test_pictures_of_any_size_and_mode_are_taken(two: Path) -> None:
    shown = [Image.new("L", (1, 1)), Image.new("RGBA", (4000, 10)), Image.new("P", (30, 60))]
    scores = load_reward("nsfw", checkpoint=two)(shown, [""] * 3)
    assert bool(((scores >= 0) & (scores <= 1)).all())


def test_classes_are_found_by_name_or_asked_for() -> None:
    assert unsafe_classes({0: "sfw", 1: "NSFW"}) == (1,)
    assert unsafe_classes({0: "a", 1: "b", 2: "c"}, "c | a") == (0, 2)
    with pytest.raises(RewardError, match="None of the classes LABEL_0, LABEL_1"):
        unsafe_classes({0: "LABEL_0", 1: "LABEL_1"})
    with pytest.raises(RewardError, match="no class 'gore'; it has sfw, nsfw"):
        unsafe_classes({0: "sfw", 1: "nsfw"}, "gore")


def test_a_folder_without_a_processor_is_refused(two: Path, tmp_path: Path) -> None:
    for path in two.iterdir():
        if path.name != "preprocessor_config.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(RewardError, match="The processor in"):
        load_reward("nsfw", checkpoint=tmp_path)
