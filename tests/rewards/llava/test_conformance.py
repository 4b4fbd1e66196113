"""The ten checks of a reimplementation of LLaVA-Reward, and where each of them stands.

 1  token layout of Phi with a square picture      test_layouts: test_phi_layout_of_a_square_picture
 2  trimmed tower, last hidden state but one       test_backbones: test_trimmed_tower_gives_…
 3  SkipCA of the last row, weights absorbed        here in bfloat16; test_heads: test_the_short_form_… in float32
 4  batches, equal and mixed sizes, both modes      here for equal sizes; test_published, test_goldens, test_heads
 5  Qwen's official SkipCA                         test_heads: test_the_official_qwen_head_sees_the_padding; here
 6  general preference is skew                     tests/rewards/test_preferences: test_the_skew_form
 7  trimmed last layer, reused prefix              test_backbones: test_reading_few_rows_…, test_prompts_on_one_…
 8  a checkpoint written and read again            test_writing, test_official: test_names_that_peft_writes
 9  accuracy with and without ties                 tests/rewards/test_preferences: test_the_two_accuracies_by_hand
10  the three prompts, byte for byte               test_layouts: test_the_three_texts
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from rewards import load_reward
from rewards.llava.backbone import padded
from rewards.llava.heads import PublishedHead, build_head
from tests.rewards.llava.cases import CASES, GOLDENS, Library, picture, run, tokens_of, tolerance

WIDTH, ROWS, LENGTH, TOKENS = 64, 8, 5, 40
STEP = 2**-8  # of bfloat16, relative


def random_head(seed: int) -> PublishedHead:
    """A head whose attention is far from even."""
    generator = torch.Generator().manual_seed(seed)
    empty = PublishedHead(WIDTH, 2, skipca=True, eps=1e-5).state_dict()
    state = {name: torch.randn(value.shape, generator=generator) / WIDTH**0.4 for name, value in empty.items()}
    return build_head(state | {"ca_layernorm.weight": 1 + state["ca_layernorm.weight"]}, 1e-5)


def as_published(head: PublishedHead, states: Tensor, visual: Tensor) -> Tensor:
    """All rows ask with matrices of their own, scores and softmax in the weights' own type; (B, L, d)."""
    query, key, value = head.W_q(states), head.W_k(visual), head.W_v(visual)
    weights = (query @ key.mT / WIDTH**0.5).softmax(-1)
    outputs: Tensor = head.value_head(head.ca_layernorm(states + weights @ value))
    return outputs


@pytest.mark.parametrize("seed", range(5))
@torch.no_grad()
def test_3_short_and_published_form_agree_within_bfloat16(seed: int) -> None:
    """Of the same coarse inputs: both are a few roundings away from the exact outputs, the default head is at them."""
    generator = torch.Generator().manual_seed(100 + seed)
    states = torch.randn(ROWS, LENGTH, WIDTH, generator=generator).bfloat16()
    visual = torch.randn(ROWS, TOKENS, WIDTH, generator=generator).bfloat16()
    state = {name: value.bfloat16() for name, value in random_head(seed).state_dict().items()}
    exact = as_published(build_head(state, 1e-5, dtype=torch.float64), states.double(), visual.double())[:, -1]
    coarse = build_head(state, 1e-5, dtype=torch.bfloat16)
    published = as_published(coarse, states, visual)[:, -1]
    short, default = (head(states[:, -1:], padded(list(visual)))[:, 0] for head in (coarse, build_head(state, 1e-5)))
    assert (short.dtype, default.dtype) == (torch.bfloat16, torch.float32)
    scale = exact.square().mean().sqrt()
    torch.testing.assert_close(default.double(), exact, rtol=1e-5, atol=1e-5 * float(scale))
    errors = [((given.double() - exact).square().mean().sqrt() / scale).item() for given in (published, short)]
    assert min(errors) > 0
    assert max(errors) < 4 * STEP


@pytest.mark.parametrize("mode", ["masked", "official"])
@pytest.mark.parametrize(("family", "adapter"), [("phi3v", "bt_ca"), ("qwen", "bt"), ("llava", "bt")])
def test_4_pictures_of_one_size_score_together_as_alone(library: Library, family: str, adapter: str, mode: Any) -> None:
    """In both modes: no row has padding where prompts are of one length too."""
    base = library.base_folder(CASES[f"{family}.{adapter}.single" + (".crops1" if family == "phi3v" else "")])
    reward: Any = load_reward(
        "llava-reward", checkpoint=GOLDENS / family / adapter, base=base, device="cpu", skipca=mode,
        **({"num_crops": 4} if family == "phi3v" else {}),
    )  # fmt: skip
    images = [picture("square").rotate(turn) for turn in (0, 90, 180)]
    together = reward(images, ["a red fox"] * 3)
    alone = torch.cat([reward([image], ["a red fox"]) for image in images])
    torch.testing.assert_close(together, alone, **tolerance("reward"))
    assert together.unique().numel() == 3


@torch.no_grad()
def test_5_an_official_qwen_alone_is_its_norm(library: Library) -> None:
    case = CASES["qwen.bt_ca.single"]
    model = library.model(case["adapter"])
    ours = run(model, case, tokens_of(model, case, "c"), official=True)
    expected = model.head.value_head(model.head.ca_layernorm(ours.last))
    torch.testing.assert_close(ours.outputs, expected, atol=1e-6, rtol=1e-6)
