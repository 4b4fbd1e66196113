"""The published head: the short form of SkipCA, what its quirks come to, and its parameters."""

import pytest
import torch
from torch import Tensor

from rewards.errors import CheckpointError
from rewards.llava.backbone import Sight, padded
from rewards.llava.head import SkipCA
from rewards.llava.heads import PublishedHead, build_head, pool_mean
from tests.rewards.llava.cases import CASES, Library, run, tokens_of

WIDTH = 24


def head(outputs: int = 1, seed: int = 0) -> PublishedHead:
    """A random head with SkipCA that counts."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: torch.randn(tensor.shape, generator=generator) / 4
        for name, tensor in PublishedHead(WIDTH, outputs, skipca=True, eps=1e-5).state_dict().items()
    }
    return build_head(state, 1e-5)


def states(rows: int = 2, length: int = 5, seed: int = 1) -> Tensor:
    return torch.randn(rows, length, WIDTH, generator=torch.Generator().manual_seed(seed))


def visual(*counts: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(count, WIDTH, generator=generator) for count in counts]


def as_published(head: PublishedHead, hidden: Tensor, seen: Tensor) -> Tensor:
    """Specification, b.0, letter by letter: all rows ask, nothing is masked; (B, L, d)."""
    query, key, value = head.W_q(hidden), head.W_k(seen), head.W_v(seen)
    weights = (query @ key.mT / WIDTH**0.5).softmax(-1)
    mixed = (hidden + weights @ value).float()
    normed = mixed * torch.rsqrt(mixed.square().mean(-1, keepdim=True) + 1e-5)
    outputs: Tensor = head.value_head(normed * head.ca_layernorm.weight)
    return outputs


@pytest.mark.parametrize("outputs", [1, 2, 6])
def test_the_short_form_is_the_published_one(outputs: int) -> None:
    hidden, seen = states(), torch.stack(visual(7, 7))
    expected = as_published(head(outputs), hidden, seen)
    ours = head(outputs)(hidden[:, -1:], padded(list(seen)))
    torch.testing.assert_close(ours, expected[:, -1:], atol=1e-5, rtol=1e-5)


def test_it_is_the_head_of_the_embedded_reward_too() -> None:
    ours, other = head(), SkipCA(WIDTH)
    names = {"q_proj": "W_q", "k_proj": "W_k", "v_proj": "W_v"}
    state = ours.state_dict()
    other.load_state_dict(
        {
            key: state[key.replace(key.split(".")[0], names.get(key.split(".")[0], key.split(".")[0]))]
            for key in other.state_dict()
        }
    )
    hidden, seen = states()[:, -1], torch.stack(visual(7, 7))
    torch.testing.assert_close(ours(hidden[:, None], padded(list(seen)))[:, 0, 0], other(hidden, seen))


def test_masked_rows_do_not_see_each_other() -> None:
    hidden, tokens = states(), visual(3, 9)
    both = head()(hidden, padded(tokens))
    for row in range(2):
        alone = head()(hidden[row : row + 1], padded(tokens[row : row + 1]))
        torch.testing.assert_close(both[row : row + 1], alone)


def test_dilution_is_as_many_keys_of_zero() -> None:
    """Zeros that count give each a logit of 0 and a value of 0: 6 more in the denominator."""
    hidden, tokens = states(), visual(3, 9)
    sight = padded(tokens)
    diluted = head().refine(hidden, Sight(sight.tokens, torch.ones_like(sight.mask)))
    logits = head().W_q(hidden[0]) @ head().W_k(tokens[0]).mT / WIDTH**0.5
    weights = logits.exp() / (logits.exp().sum(-1, keepdim=True) + 6)
    expected = head().ca_layernorm(hidden[0] + weights @ head().W_v(tokens[0]))
    torch.testing.assert_close(diluted[0], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(diluted[1], head().refine(hidden[1:], padded(tokens[1:]))[0])


def test_nothing_to_look_at_leaves_the_norm() -> None:
    hidden = states()
    for empty in (padded(visual(0, 0)), padded([torch.zeros(0, WIDTH), visual(4)[0]])):
        torch.testing.assert_close(head().refine(hidden, empty)[0], head().ca_layernorm(hidden[0]))


@torch.no_grad()
def test_the_official_qwen_head_sees_the_padding(library: Library) -> None:
    """RMSNorm(h) in a row without padding, RMSNorm(h + W_v E_pad) in one with (specification, b.2)."""
    case = CASES["qwen.bt_ca.batch2"]
    model = library.model(case["adapter"])
    batch = tokens_of(model, case, "c")
    assert not batch.mask.all()
    assert batch.mask[batch.mask.sum(-1).argmax()].all()
    ours = run(model, case, batch, official=True)
    words = model.backbone.model.embed_tokens  # type: ignore[attr-defined]
    pad = model.head.W_v(words.weight[151643])
    is_padded = ~batch.mask.all(-1, keepdim=True)
    expected = model.head.ca_layernorm(ours.last + is_padded * pad)
    torch.testing.assert_close(ours.head_input, expected, atol=1e-5, rtol=1e-5)
    paper = run(model, case, batch, official=False)
    assert not torch.allclose(paper.head_input, ours.head_input, atol=1e-2)  # here the picture counts


def test_mean_leaves_padding_out() -> None:
    values = torch.tensor([[[9.0], [1.0], [3.0]], [[2.0], [4.0], [6.0]]])
    mask = torch.tensor([[False, True, True], [True, True, True]])
    assert pool_mean(values, mask).tolist() == [[2.0], [4.0]]


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("W_k.weight", None, "nothing"),
        ("W_k.weight", torch.zeros(3, WIDTH), r"\(3, 24\)"),
        ("ca_layernorm.weight", torch.full((WIDTH,), torch.nan), "not finite"),
        ("value_head.weight", None, "expected 'value_head.weight'"),
    ],
)
def test_damaged_heads(name: str, tensor: Tensor | None, message: str) -> None:
    state = {key: value for key, value in head().state_dict().items() if key != name}
    if tensor is not None:
        state[name] = tensor
    with pytest.raises(CheckpointError, match=message):
        build_head(state, 1e-5)
