"""What only a GPU shows: the same results there, and in half precision. By hand: pytest -m gpu tests/test_gpu.py."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from bon_search import BestOfNPipeline
from rewards import load_reward
from rewards.shapes.render import render
from rewards.shapes.scenes import random_scene, true_spec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.filterwarnings("default"),
]
PROMPT = "a red circle left of a blue square"


def scores_of(**options: object) -> torch.Tensor:
    draws = Random(0)
    scenes = [random_scene(draws) for _ in range(40)]
    pictures = [Image.fromarray(render(scene, draws)) for scene in scenes]
    return load_reward("llava-reward", **options)(pictures, [true_spec(scene, draws).prompt for scene in scenes])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-3), ("bfloat16", 0.15)])
def test_the_reward_gives_the_scores_of_the_cpu(dtype: str, tolerance: float) -> None:
    found = scores_of(device="cuda", dtype=dtype)
    torch.testing.assert_close(found, scores_of(device="cpu"), atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3), ("float16", 12)])
def test_candidates_are_those_of_the_cpu(dtype: str, tolerance: int) -> None:
    """In one dtype: what torch draws in half precision was another noise in its older releases."""
    there, here = (
        BestOfNPipeline.from_pretrained("embedded", device=device, dtype=dtype)(PROMPT, n=4)
        for device in ("cuda", "cpu")
    )
    pictures = [{c.seed: torch.from_numpy(np.array(c.image)).int() for c in out.candidates} for out in (there, here)]
    for seed, picture in pictures[0].items():
        assert (picture - pictures[1][seed]).abs().float().quantile(0.99) <= tolerance


@pytest.mark.parametrize("search", ["halving", "smc", "svdd", "zero_order", "reno"])
def test_searches_run_and_are_remade(search: str, tmp_path: Path) -> None:
    from bon_search.recipe import read_remake

    pipe = BestOfNPipeline.from_pretrained("embedded", device="cuda", batch_invariant=True)
    found = pipe(PROMPT, n=4, steps=8, search=search)
    found.save(tmp_path)
    run = pipe.remake(read_remake(tmp_path / "result.json", 1))
    (again,) = list(run)
    assert again.score == pytest.approx(found.best.score, abs=1e-3)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_training_lowers_the_loss(bfloat16: bool, tmp_path: Path) -> None:
    from rewards.training.records import read_records
    from rewards.training.run import Run, train
    from rewards.training.settings import Settings

    draws = Random(1)
    lines = []
    for number in range(32):
        scenes = [random_scene(draws) for _ in range(2)]
        for side, scene in enumerate(scenes):
            Image.fromarray(render(scene, draws)).save(tmp_path / f"{number}-{side}.png")
        row = {"prompt": true_spec(scenes[1], draws).prompt, "chosen_path": f"{number}-0.png"}
        lines.append(json.dumps(row | {"reject_path": f"{number}-1.png"}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    records, faults = read_records(tmp_path / "pairs.jsonl")
    settings = Settings(steps=25, batch=32, micro=32, rank=16, alpha=32, rate=2e-3, dropout=0, bfloat16=bfloat16)
    losses = [report.loss for report in train(Run(records, "embedded", tmp_path / "out", settings))]
    assert not faults
    assert losses[-1] < 0.8 * losses[0]
    assert load_reward("llava-reward", checkpoint=tmp_path / "out", device="cuda").name
