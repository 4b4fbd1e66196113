"""Backbones against transformers' own models, and the short cuts against the long way."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rewards.llava
from rewards.errors import RewardError
from rewards.llava import tower
from rewards.llava.backbone import Backbone, Embedded, Picture, Tokens, batch, last_rows
from rewards.llava.beginnings import common_start, read_last
from rewards.llava.decoder import read
from rewards.llava.families import family_of
from rewards.llava.qwen import window_order
from rewards.llava.tower import clip_tower, patch_features
from rewards.llava.weights import empty, fill, read_json, weight_files
from tests.rewards.llava.cases import CASES, Library, inputs_of, picture, qwen_base, run, tokens_of

VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56,
    "patch_size": 14, "projection_dim": 32,
}  # fmt: skip
TEXT = {
    "model_type": "llama", "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 60, "rms_norm_eps": 1e-5,
}  # fmt: skip
IMAGE = 59


def load(folder: Path) -> Backbone:
    """A backbone without tokenizer."""
    config = read_json(folder / "config.json")
    family = family_of(config)
    module = empty(lambda: family.build(config))
    fill(module, weight_files(folder), family.rename(config))
    return module  # type: ignore[return-value]


def tokens(counts: list[int], pictures: list[Picture], seed: int = 0) -> Tokens:
    """Rows <s> picture words, with some words more in each row, padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    rows = [
        torch.cat(
            [torch.tensor([1]), torch.full((count,), IMAGE), torch.randint(2, 50, (4 + extra,), generator=generator)]
        )
        for extra, count in enumerate(counts)
    ]
    length = max(len(row) for row in rows)
    ids = torch.stack([nn.functional.pad(row, (length - len(row), 0), value=0) for row in rows])
    mask = torch.stack([nn.functional.pad(torch.ones(len(row)), (length - len(row), 0)).bool() for row in rows])
    return Tokens(ids, mask, tuple(pictures))


@torch.no_grad()
def states(backbone: Backbone, batch: Tokens) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Visual tokens and all final states."""
    visual = backbone.project(backbone.features(batch.pictures), batch.pictures)
    return visual, read(backbone, backbone.embed(batch, visual))


@pytest.mark.parametrize("layer", [-1, -2, 2])
def test_plain_llava_is_that_of_transformers(tmp_path: Path, layer: int) -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    config = LlavaConfig(vision_config=VISION, text_config=TEXT, image_token_index=IMAGE, vision_feature_layer=layer)
    model = LlavaForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    pictures = [Picture(torch.randn(1, 3, 56, 56), (56, 56)) for _ in range(2)]
    batch = tokens([16, 16], pictures)
    _, ours = states(load(tmp_path), batch)
    with torch.no_grad():
        theirs = model.model(
            input_ids=batch.ids,
            attention_mask=batch.mask.long(),
            pixel_values=torch.cat([seen.pixels for seen in pictures]),
        ).last_hidden_state
    torch.testing.assert_close(ours[batch.mask], theirs[batch.mask], atol=1e-5, rtol=1e-5)


def test_the_embedded_llava_is_that_of_transformers() -> None:
    from transformers import LlavaForConditionalGeneration

    folder = Path(rewards.llava.__file__).parent / "embedded"
    model = LlavaForConditionalGeneration.from_pretrained(folder, local_files_only=True).eval()
    backbone = load(folder)
    seen = [Picture(torch.randn(1, 3, 64, 64), (64, 64))]
    slot = model.config.image_token_id
    ids = torch.cat([torch.tensor([1]), torch.full((64,), slot), torch.tensor([5, 6, 7, 2])])[None]
    batch = Tokens(ids, torch.ones_like(ids, dtype=torch.bool), tuple(seen))
    _, ours = states(backbone, batch)
    with torch.no_grad():
        theirs = model.model(input_ids=ids, pixel_values=seen[0].pixels).last_hidden_state
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_llava_next_is_that_of_transformers(tmp_path: Path) -> None:
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

    torch.manual_seed(0)
    grid = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
    config = LlavaNextConfig(vision_config=VISION, text_config=TEXT, image_token_index=IMAGE, image_grid_pinpoints=grid)
    model = LlavaNextForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    pictures = [Picture(torch.randn(5, 3, 56, 56), (90, 100)), Picture(torch.randn(4, 3, 56, 56), (40, 130))]
    ours = load(tmp_path)
    counts = [len(visual) for visual in ours.project(ours.features(pictures), pictures)]
    batch = tokens(counts, pictures)
    _, hidden = states(ours, batch)
    pixels = torch.stack([torch.cat([seen.pixels, torch.zeros(5 - len(seen.pixels), 3, 56, 56)]) for seen in pictures])
    with torch.no_grad():
        theirs = model.model(
            input_ids=batch.ids,
            attention_mask=batch.mask.long(),
            pixel_values=pixels,
            image_sizes=torch.tensor([seen.size for seen in pictures]),
        ).last_hidden_state
    torch.testing.assert_close(hidden[batch.mask], theirs[batch.mask], atol=1e-5, rtol=1e-5)


def test_qwen_is_that_of_transformers(tmp_path: Path) -> None:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 1e4}
    text = {**TEXT, "model_type": "qwen2_5_vl_text", "rope_parameters": rope, "bos_token_id": 1, "eos_token_id": 2}
    vision = {
        "depth": 3, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 48,
        "window_size": 56, "fullatt_block_indexes": [1],
    }  # fmt: skip
    places = {"image_token_id": IMAGE, "video_token_id": 58, "vision_start_token_id": 57, "vision_end_token_id": 56}
    model = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision, **places)
    ).eval()
    model.save_pretrained(tmp_path)
    pictures = [Picture(torch.randn(60, 1176), (6, 10)), Picture(torch.randn(32, 1176), (4, 8))]
    batch = tokens([15, 8], pictures)
    visual, hidden = states(load(tmp_path), batch)
    grids = torch.tensor([(1, *seen.size) for seen in pictures])
    with torch.no_grad():
        pixels = torch.cat([seen.pixels for seen in pictures])
        torch.testing.assert_close(torch.cat(visual), model.model.visual(pixels, grid_thw=grids).pooler_output)
        theirs = model.model(
            input_ids=batch.ids,
            attention_mask=batch.mask.long(),
            pixel_values=pixels,
            image_grid_thw=grids,
            mm_token_type_ids=(batch.ids == IMAGE).int(),
        ).last_hidden_state
    torch.testing.assert_close(hidden[batch.mask], theirs[batch.mask], atol=1e-5, rtol=1e-5)


def test_trimmed_tower_gives_the_last_hidden_state_but_one() -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    full = CLIPVisionModel(CLIPVisionConfig(**VISION)).eval()
    trimmed = clip_tower(CLIPVisionConfig(**VISION), -2).eval()
    trimmed.load_state_dict(full.state_dict(), strict=False)
    pixels = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        expected = full(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        torch.testing.assert_close(patch_features(trimmed, pixels), expected)
    assert len(trimmed.encoder.layers) == 2  # type: ignore[union-attr, arg-type]


SHORT_CUTS = ["phi3v.bt_ca.batch3.crops4", "qwen.bt.batch3", "llava.bt.batch3"]


@torch.no_grad()
def test_crops_in_few_passes_give_the_numbers_of_one(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["phi3v.bt_ca.batch3.crops4"]
    model = library.model(case["adapter"])
    pictures = [inputs_of(model, case).picture(picture(name)) for name in ("wide", "tall")]
    found = []
    for few in (1, 3, 64):
        monkeypatch.setitem(tower._ROWS, "cpu", few * 577)
        found.append(torch.cat(model.backbone.features(pictures)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module", params=SHORT_CUTS)
def embedded(request: pytest.FixtureRequest, library: Library) -> tuple[Backbone, Embedded]:
    case = CASES[request.param]
    model = library.model(case["adapter"])
    batch = tokens_of(model, case, "c")
    with torch.no_grad():
        visual = model.backbone.project(model.backbone.features(batch.pictures), batch.pictures)
        return model.backbone, model.backbone.embed(batch, visual)


@pytest.mark.parametrize("layer", [None, 0, 1, 2])
@torch.no_grad()
def test_reading_few_rows_gives_the_numbers_of_the_full_pass(
    embedded: tuple[Backbone, Embedded], layer: int | None
) -> None:
    backbone, inputs = embedded
    last = last_rows(inputs.mask)
    rows = torch.cat([last - 3, last], dim=1)
    full = read(backbone, inputs, layer=layer)
    expected = full.gather(1, rows[..., None].expand(-1, -1, full.shape[-1]))
    torch.testing.assert_close(read(backbone, inputs, rows=rows, layer=layer), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_wrapped_projection_gives_the_same(embedded: tuple[Backbone, Embedded]) -> None:
    backbone, inputs = embedded
    last = last_rows(inputs.mask)
    expected = read(backbone, inputs, rows=last)
    attention: Any = backbone.layers[-1].self_attn
    if not hasattr(attention, "qkv_proj"):
        return  # only a fused projection is cut
    plain = attention.qkv_proj

    class Wrapped(nn.Linear):
        """Like an adapter around a matrix."""

    attention.qkv_proj = Wrapped(plain.in_features, plain.out_features, bias=False)
    attention.qkv_proj.weight = plain.weight
    try:
        torch.testing.assert_close(read(backbone, inputs, rows=last), expected, atol=1e-5, rtol=1e-5)
    finally:
        attention.qkv_proj = plain


@torch.no_grad()
def test_right_padding_gives_the_numbers_of_left_padding(library: Library) -> None:
    for name in SHORT_CUTS:
        case = CASES[name]
        model = library.model(case["adapter"])
        left, right = (
            run(model, case, tokens_of(model, case, "c", side), official=False) for side in ("left", "right")
        )  # type: ignore[arg-type]
        assert not left.tokens.mask.all()
        torch.testing.assert_close(right.outputs, left.outputs, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(right.last, left.last, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [None, 2])
@pytest.mark.parametrize("name", SHORT_CUTS)
@torch.no_grad()
def test_prompts_on_one_picture_share_their_beginning(library: Library, name: str, layer: int | None) -> None:
    case = CASES[name]
    model = library.model(case["adapter"])
    inputs = inputs_of(model, case)
    seen = inputs.picture(picture("cat_a"))
    prompts = ["a red fox", "a red fox in deep snow", "boats"]
    ids = [inputs.ids(prompt, seen) for prompt in prompts]
    tokens = batch(ids, [seen] * 3, inputs.pad_id)
    visual = model.backbone.project(model.backbone.features([seen]), [seen])
    start = common_start(ids)
    assert len(visual[0]) < start < min(map(len, ids))
    alone = [model.backbone.embed(batch([row], [seen], inputs.pad_id), visual) for row in ids]
    ours = read_last(model.backbone, alone, start=start, layer=layer)
    expected = read(model.backbone, model.backbone.embed(tokens, visual * 3), rows=last_rows(tokens.mask), layer=layer)
    torch.testing.assert_close(ours, expected, atol=3e-5, rtol=1e-5)


@torch.no_grad()
def test_any_beginning_may_be_shared(embedded: tuple[Backbone, Embedded]) -> None:
    """A row cut anywhere, and twice of it, so that the ends of one position each are run in two passes."""
    backbone, inputs = embedded
    row = int(inputs.mask.sum(-1).argmax())  # the longest, without padding
    whole = Embedded(*(part[row : row + 1] for part in (inputs.x, inputs.cos, inputs.sin, inputs.mask)))
    expected = read(backbone, whole)[:, -1:]
    for start in (1, whole.x.shape[1] // 2, whole.x.shape[1] - 1):
        ours = read_last(backbone, [whole] * 3, start=start)
        torch.testing.assert_close(ours, expected.expand(3, -1, -1), atol=3e-5, rtol=1e-5)


@torch.no_grad()
def test_rows_of_different_rotary_factors_share_no_beginning(library: Library) -> None:
    """Short factors up to 1024 tokens, long ones above."""
    case = CASES["phi3v.bt_ca.long2.crops4"]
    model = library.model(case["adapter"])
    inputs = inputs_of(model, case)
    seen = inputs.picture(picture("cat_a"))
    visual = model.backbone.project(model.backbone.features([seen]), [seen])
    ids = [inputs.ids(prompt, seen) for prompt in ("boats " * 400, "boats", "boats " * 401)]
    assert len(ids[1]) <= 1024 < len(ids[0])
    alone = [model.backbone.embed(batch([row], [seen], inputs.pad_id), visual) for row in ids]
    ours = read_last(model.backbone, alone, start=common_start(ids))
    expected = torch.cat([read(model.backbone, row)[:, -1:] for row in alone])
    torch.testing.assert_close(ours, expected, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "shared"), [(["abc", "abd"], 2), (["abc", "abc"], 2), (["abc", "ab"], 1), (["abc", "xbc"], 0)]
)
def test_ids_that_rows_have_in_common(rows: list[str], shared: int) -> None:
    assert common_start([list(map(ord, row)) for row in rows]) == shared


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_that_does_not_exist_is_refused(embedded: tuple[Backbone, Embedded], layer: int) -> None:
    with pytest.raises(RewardError, match="expected 0 to 2"):
        read(*embedded, layer=layer)


@torch.no_grad()
def test_a_phi_row_keeps_its_rotary_factors_in_a_longer_batch(library: Library) -> None:
    """Short factors below 1025 tokens whatever the padding; the published code looks at the padded length."""
    case = CASES["phi3v.bt_ca.long2.crops4"]
    model = library.model(case["adapter"])
    batch = tokens_of(model, case, "c")
    visual = model.backbone.project(model.backbone.features(batch.pictures), batch.pictures)
    lengths = batch.mask.sum(-1).tolist()
    assert lengths[0] <= 1024 < lengths[1]
    ours, official = (model.backbone.embed(batch, visual, official=mode) for mode in (False, True))
    assert torch.equal(ours.cos[1], official.cos[1])
    assert not torch.equal(ours.cos[0], official.cos[0])


def test_windows_of_a_picture_that_does_not_fill_them() -> None:
    """Cells 0..14 of a 3 x 5 grid in windows of 2 x 2 cells: left to right, then down, edges cut off."""
    order = window_order((6, 10), merge=2, window=4)
    assert order.tolist() == [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14]


def test_real_crops_only(library: Library) -> None:
    """The tower sees a picture's own crops, not the zeros that fill it up to `num_crops`."""
    case = CASES["phi3v.bt_ca.single.crops16"]
    model = library.model(case["adapter"])
    seen = tokens_of(model, case, "r").pictures[0]
    high, wide = (side // 336 for side in seen.size)
    assert len(seen.pixels) == 1 + high * wide < 17


def test_qwens_tower_runs_without_its_merger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is trained where the tower is frozen, and then lies in parts in several processes."""
    backbone: Any = load(qwen_base(tmp_path))
    pixels = torch.randn(16, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(backbone.visual.merger, "forward", lambda x: pytest.fail("the merger ran"))
    (features,) = backbone.features([Picture(pixels, (4, 4))])
    assert features.shape == (16, backbone.visual.config.hidden_size)
    assert "merger" in dict(backbone.visual.named_children())
