"""SkipCA on one row against the formula on the whole sequence, and its settings against the paper's code."""

import pytest
import torch
from torch.nn import functional

from rewards.llava.head import Linear, RMSNorm, SkipCA

WIDTH, LENGTH, VISUAL, COUNT = 32, 11, 7, 5


def naive(head: SkipCA, states: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
    """All rows: out = RMSNorm(h + softmax(Q Kᵀ / sqrt H) V); scores of every position, (N, L)."""
    query, key, value = (
        part @ weight.T
        for part, weight in (
            (states, head.q_proj.weight), (visual, head.k_proj.weight), (visual, head.v_proj.weight)
        )
    )  # fmt: skip
    attention = (query @ key.transpose(1, 2) / WIDTH**0.5).softmax(-1)
    out = states + attention @ value
    out = out / (out.square().mean(-1, keepdim=True) + 1e-5).sqrt() * head.ca_layernorm.weight
    return (out @ head.value_head.weight.T)[..., 0]


@pytest.fixture
def head() -> SkipCA:
    torch.manual_seed(0)
    head = SkipCA(WIDTH).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)  # weights of size 1, so that a wrong scale would show
    return head


def test_the_last_row_alone_equals_the_whole_sequence(head: SkipCA) -> None:
    states, visual = torch.randn(COUNT, LENGTH, WIDTH).double(), torch.randn(COUNT, VISUAL, WIDTH).double()
    last = torch.tensor([10, 3, 7, 0, 10])
    expected = naive(head, states, visual)[torch.arange(COUNT), last]
    actual = head(states[torch.arange(COUNT), last], visual)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)  # the norm is computed in float32


def test_the_head_is_bias_free_and_starts_as_published() -> None:
    torch.manual_seed(0)
    head = SkipCA(256)
    assert not any("bias" in name for name, _ in head.named_parameters())
    assert head.ca_layernorm.weight.eq(1).all()
    assert head.q_proj.weight.std().item() == pytest.approx(1 / 257, rel=0.02)


def test_the_order_of_visual_tokens_does_not_matter(head: SkipCA) -> None:
    last, visual = torch.randn(COUNT, WIDTH).double(), torch.randn(COUNT, VISUAL, WIDTH).double()
    torch.testing.assert_close(head(last, visual), head(last, visual.flip(1)), rtol=1e-6, atol=1e-6)


def test_the_norm_is_computed_in_float32_and_equals_torch() -> None:
    x = torch.randn(4, WIDTH)
    norm = RMSNorm(WIDTH)
    torch.testing.assert_close(norm(x), functional.rms_norm(x, (WIDTH,), eps=1e-5))
    large = torch.full((1, WIDTH), 300.0, dtype=torch.float16)  # its square overflows in float16
    assert norm.half()(large).isfinite().all()


def test_without_skipca_the_picture_is_not_looked_at_again() -> None:
    head = Linear(WIDTH)
    last = torch.randn(COUNT, WIDTH)
    expected = last @ head.value_head.weight[0]
    torch.testing.assert_close(head(last, torch.randn(COUNT, VISUAL, WIDTH)), expected)
