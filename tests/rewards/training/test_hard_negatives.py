"""Mismatched prompts, and candidates of runs that a verifier or a person tells apart."""

import json
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from rewards import load_reward
from rewards.errors import RewardError
from rewards.shapes.captions import parse, sentence
from rewards.shapes.render import render
from rewards.shapes.scenes import random_scene, scene_for, true_spec
from rewards.training.hard_negatives import mismatched, pairs_of_runs
from rewards.training.records import Pair, Record, Side, Single
from tests.rewards.training.world import pictures

PROMPT = "a photo of a red circle left of a blue square"


def run_folder(folder: Path, good: int, bad: int) -> Path:
    """A folder as generate-best writes it, with so many candidates that fit the prompt and others that do not."""
    draws, rows = Random(0), []
    (folder / "candidates").mkdir(parents=True)
    for seed in range(good + bad):
        scene = scene_for(parse(PROMPT), draws) if seed < good else random_scene(draws, "single")
        Image.fromarray(render(scene, draws)).save(folder / f"candidates/seed-{seed}.png")
        rows.append({"rank": seed + 1, "seed": seed, "score": 0.0, "file": f"candidates/seed-{seed}.png"})
    content = {"schema": 1, "recipe": {"prompt": PROMPT}, "candidates": rows}
    (folder / "result.json").write_text(json.dumps(content))
    return folder


def names(pairs: list[Pair]) -> list[tuple[str, str]]:
    return [(pair.chosen.image.stem, pair.rejected.image.stem) for pair in pairs]


def test_a_mismatched_prompt_is_another_records_and_the_nearest_there_is(tmp_path: Path) -> None:
    texts = ["a red circle", "a red square", "two green hearts"]
    records: list[Record] = [Single(Side(tmp_path / f"{k}.png", text), 1, f"line {k}") for k, text in enumerate(texts)]
    bad = Single(Side(tmp_path / "bad.png", "three stars"), 0, "line 9")
    pairs = {pair.chosen.prompt: pair.rejected.prompt for pair in mismatched([*records, bad], 9, seed=0)}
    assert pairs["a red circle"] == "a red square"
    assert pairs["a red square"] == "a red circle"
    assert "three stars" not in pairs
    assert len(mismatched(records, 2, seed=0)) == 2
    assert all(pair.chosen.image == pair.rejected.image for pair in mismatched(records, 3, seed=1))
    with pytest.raises(RewardError, match="two to mismatch"):
        mismatched(records[:1], 1, seed=0)


def test_a_judge_keeps_prompts_out_that_are_as_true(tmp_path: Path) -> None:
    draws = Random(3)
    scene = random_scene(draws, "single")
    Image.fromarray(render(scene, draws)).save(tmp_path / "one.png")
    colored, plain = (sentence(true_spec(scene, draws, skill)) for skill in ("colors", "single_object"))
    truths: list[Record] = [Single(Side(tmp_path / "one.png", prompt), 1) for prompt in (colored, plain)]
    judge = load_reward("shapes")
    assert len(mismatched(truths, 2, seed=0)) == 2
    assert mismatched(truths, 2, seed=0, judge=judge) == []
    others: list[Record] = [Single(side, 1) for side in pictures(tmp_path, 6, 0)]
    assert len(mismatched(others, 6, seed=0, judge=judge)) >= 5


def test_a_verifier_prefers_candidates_that_pass(tmp_path: Path) -> None:
    run_folder(tmp_path / "0001-run", good=2, bad=2)
    pairs = pairs_of_runs(tmp_path, judge=load_reward("shapes"), gap=0.5)
    assert set(names(pairs)) == {(f"seed-{good}", f"seed-{bad}") for good in (0, 1) for bad in (2, 3)}
    assert {side.prompt for pair in pairs for side in pair.sides} == {PROMPT}
    assert len(pairs_of_runs(tmp_path, judge=load_reward("shapes"), gap=0.5, most=3)) == 3
    assert pairs_of_runs(tmp_path, judge=load_reward("shapes"), gap=2.0) == []


def test_runs_that_share_candidates_give_a_pair_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_folder(tmp_path / name, good=1, bad=1)
    assert len(pairs_of_runs(tmp_path, judge=load_reward("shapes"))) == 1


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_persons_picks_are_preferred_to_all_others_of_their_run(tmp_path: Path, kind: str) -> None:
    run_folder(tmp_path / "runs/a", good=1, bad=2)
    run_folder(tmp_path / "runs/b", good=1, bad=1)
    picks = tmp_path / f"picks.{kind}"
    rows = [("a", "2"), ("a", "seed-1.png")]
    text = {"csv": "run,pick\n" + "".join(f"{run},{pick}\n" for run, pick in rows),
            "jsonl": "".join(json.dumps({"run": run, "pick": pick}) + "\n" for run, pick in rows)}  # fmt: skip
    picks.write_text(text[kind])
    assert names(pairs_of_runs(tmp_path / "runs", picks=picks)) == [("seed-1", "seed-0"), ("seed-2", "seed-0")]
    picks.write_text(text[kind].replace("seed-1.png", "seed-7.png"))
    with pytest.raises(RewardError, match=r"has no candidate 'seed-7\.png'"):
        pairs_of_runs(tmp_path / "runs", picks=picks)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    judge = load_reward("shapes")
    with pytest.raises(RewardError, match=r"There is no result\.json"):
        pairs_of_runs(tmp_path, judge=judge)
    with pytest.raises(RewardError, match="either a judge or a file of picks"):
        pairs_of_runs(tmp_path)
    (run_folder(tmp_path / "a", 1, 1) / "result.json").write_text("{}")
    with pytest.raises(RewardError, match="is no result of generate-best"):
        pairs_of_runs(tmp_path, judge=judge)
