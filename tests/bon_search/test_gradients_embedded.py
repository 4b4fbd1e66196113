"""Gradient searches on the embedded model: better than best-of-N at equal NFE, and made again from result.json."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from bon_search import BestOfNPipeline, Look
from bon_search.recipe import read_remake
from bon_search.result import SearchResult
from pipelines import DiffusersSampler
from rewards import load_reward

PROMPT, STEPS, N = "a red circle left of a blue square", 3, 6
OPTIONS: dict[str, dict[str, Any]] = {
    "best_of_n": {},
    "reno": {"start": 2},
    "dno": {"start": 2},
    "das_gradient": {"start": 0.0},
    "psi": {},
}


@cache
def pipe() -> BestOfNPipeline:
    return BestOfNPipeline.from_pretrained("embedded", reward="pixels:brightness")


@cache
def result(search: str) -> SearchResult:
    n = 3 if search == "das_gradient" else N
    return pipe()(PROMPT, n=n, steps=STEPS, search=search, options=OPTIONS[search], seed=20)


@pytest.mark.parametrize("search", ["reno", "dno"])
def test_brighter_than_best_of_n_at_equal_nfe(search: str) -> None:
    ours, plain = result(search), result("best_of_n")
    assert ours.cost.nfe == plain.cost.nfe == N * STEPS
    assert ours.cost.backwards == (N - 1) * STEPS
    assert ours.best.score > plain.best.score + 0.02


@pytest.mark.parametrize("search", ["best_of_n", "reno", "psi"])
def test_a_run_shows_its_looks_at_no_cost(search: str) -> None:
    unwatched = result(search)
    run = pipe().start(PROMPT, n=unwatched.recipe.n, steps=STEPS, search=search, options=OPTIONS[search], seed=20)
    looks: list[Look] = []
    run.on_look = looks.append
    for _ in run:
        pass
    assert replace(run.result.cost, seconds=0) == replace(unwatched.cost, seconds=0)
    assert sum(len(look.streams) for look in looks) == unwatched.cost.rewards
    assert max(float(look.scores.max()) for look in looks if look.step == STEPS) == unwatched.best.score
    assert not any(look.images.requires_grad or look.scores.requires_grad for look in looks)


@pytest.mark.parametrize("search", ["reno", "dno", "das_gradient", "psi"])
def test_the_winner_is_made_again_bit_for_bit(search: str, tmp_path: Path) -> None:
    saved = result(search)
    saved.save(tmp_path / "run")
    path = tmp_path / "run" / "result.json"
    assert json.loads(path.read_text())["cost"]["backwards"] == saved.cost.backwards > 0
    remake = read_remake(path, 1)
    (again,) = pipe().remake(remake)
    assert again.pixels == saved.best.pixels
    assert again.seed == saved.best.seed


def test_the_embedded_llava_reward_gives_gradients_of_pictures() -> None:
    """Finite differences along the gradient, through prompt, vision tower and head, in float32."""
    reward = load_reward("llava-reward")
    sampler = DiffusersSampler(pipe().pipe, steps=2, prompt=PROMPT, height=64, width=64)
    images = sampler.decode(sampler.advance(sampler.init([0, 1]), to=2)).requires_grad_()
    (slopes,) = torch.autograd.grad(reward(images, [PROMPT] * 2).sum(), images)
    lengths = slopes.flatten(1).norm(dim=1)
    inside = slopes * ((images > 0.02) & (images < 0.98))  # so that no pixel leaves [0, 1]
    shift = 0.01 * inside / inside.flatten(1).norm(dim=1)[:, None, None, None]
    with torch.no_grad():
        up, down = (reward((images + sign * shift).detach(), [PROMPT] * 2) for sign in (1, -1))
    expected = (slopes * shift).flatten(1).sum(dim=1)
    torch.testing.assert_close((up - down) / 2, expected, rtol=0.03, atol=0)
    assert (lengths > 0).all()
