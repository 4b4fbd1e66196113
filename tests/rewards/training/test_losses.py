"""The losses against the official implementation, closed forms and finite differences."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewards.training.losses import (
    advantages,
    classification_losses,
    pair_losses,
    paired_classification_losses,
    preference_losses,
)

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("losses.json").read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = RECORDED["cases"]
CLOSE = {"atol": 1e-6, "rtol": 1e-5}


def name(case: dict[str, Any]) -> str:
    return f"{case['class']}-{case['init'].get('tau')}-{case['rewards']}-{case.get('margin')}"


def column(values: list[Any]) -> Tensor:
    outputs = torch.tensor(values)
    return (outputs[:, None] if outputs.ndim == 1 else outputs).requires_grad_()


@pytest.mark.parametrize("case", [case for case in CASES if case["class"] != "Binary_Cls_loss"], ids=name)
def test_pairs_equal_the_official_loss_probability_and_gradient(case: dict[str, Any]) -> None:
    both = RECORDED["inputs"][case["rewards"]]
    chosen, rejected = column(both["chosen_reward"]), column(both["reject_reward"])
    margins = torch.tensor(RECORDED["inputs"]["margin"]) if case["margin"] else 0.0
    kind = "cls" if case["class"] == "Cls_loss" else "bt" if chosen.shape[1] == 1 else "gpm"
    loss = pair_losses(kind, chosen, rejected, case["init"].get("tau", 1.0), margins).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss.item(), case["loss"], **CLOSE)
    for side, outputs in (("chosen_reward", chosen), ("reject_reward", rejected)):
        assert outputs.grad is not None
        recorded = torch.tensor(case["grad"][side]).view_as(outputs)
        torch.testing.assert_close(outputs.grad, recorded, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("case", [case for case in CASES if case["class"] == "Binary_Cls_loss"], ids=name)
def test_labels_equal_the_official_loss_in_float32(case: dict[str, Any]) -> None:
    table, side = case["rewards"].split(".")
    outputs = column(RECORDED["inputs"][table][side])
    loss = classification_losses(outputs, torch.tensor(RECORDED["inputs"]["labels"])).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    torch.testing.assert_close(loss.item(), case["loss"], **CLOSE)
    torch.testing.assert_close(outputs.grad[:, 0], torch.tensor(case["grad"]["rewards"]), atol=1e-6, rtol=1e-4)


def test_two_equal_sides_cost_one_bit_and_a_margin_costs_itself() -> None:
    side = torch.zeros(1, 1)
    assert preference_losses(side, side, 0.1).item() == pytest.approx(math.log(2))
    assert preference_losses(side, side, 0.1, 100.0).item() == pytest.approx(1000.0)


def test_labels_between_the_ends_cost_least_at_their_own_odds() -> None:
    odds = torch.tensor([[math.log(0.3 / 0.7)]])
    entropy = -(0.3 * math.log(0.3) + 0.7 * math.log(0.7))
    assert classification_losses(odds, torch.tensor([0.3])).item() == pytest.approx(entropy, rel=1e-6)
    assert classification_losses(odds + 0.1, torch.tensor([0.3])).item() > entropy


@pytest.mark.parametrize("width", [2, 4, 6])
def test_the_advantage_is_the_skew_form_and_changes_sign_with_the_sides(width: int) -> None:
    draws = torch.Generator().manual_seed(0)
    v, w = torch.randn(5, width, generator=draws), torch.randn(5, width, generator=draws)
    rotation = torch.block_diag(*[torch.tensor([[0.0, -1.0], [1.0, 0.0]])] * (width // 2))
    torch.testing.assert_close(advantages(v, w), ((v @ rotation.T) * w).sum(1))
    assert torch.equal(advantages(v, w), -advantages(w, v))
    assert torch.equal(advantages(v, v), torch.zeros(5))


@pytest.mark.parametrize(("kind", "width"), [("bt", 1), ("gpm", 2), ("gpm", 4), ("cls", 1)])
def test_gradients_equal_finite_differences(kind: Any, width: int) -> None:
    draws = torch.Generator().manual_seed(1)
    chosen, rejected = (torch.randn(3, width, generator=draws).double().requires_grad_() for _ in "cr")
    margins = torch.rand(3, generator=draws).double()

    def loss(c: Tensor, r: Tensor) -> Tensor:
        return paired_classification_losses(c, r) if kind == "cls" else preference_losses(c, r, 0.7, margins)

    assert torch.autograd.gradcheck(loss, (chosen, rejected))
