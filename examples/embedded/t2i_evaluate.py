"""How often the embedded text-to-image model does what it is told, judged by the exact verifier.

    python t2i_evaluate.py ../../pipelines/embedded --per-skill 20 --candidates 16 --seed 7 --json figures.json

For each skill: pass rate of a single candidate, strict pass rate, and the share of prompts where the best of 4 and of
16 passes (an oracle picks; expectation without replacement). For previews at a quarter, half and three quarters of the
steps: agreement of verdicts and the correlation of scores within a prompt, averaged over the prompts where both vary.
"""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import comb
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from t2i_card import tables
from t2i_sampling import Candidates, generate, load

from rewards.shapes import ALL_SKILLS, HARD_SKILLS, SKILLS, Spec
from rewards.shapes.scenes import Split, prompt_set
from rewards.shapes.verifier import Verdict, verify_batch

DARK = 128  # mean of a picture's border, 0..255; light grounds are above 170


@dataclass(frozen=True)
class Judged:
    """The candidates of one prompt with their verdicts, final and at the previewed steps."""

    spec: Spec
    final: tuple[Verdict, ...]
    previews: dict[int, tuple[Verdict, ...]]
    dark: int


def main() -> None:
    """Generate, judge, print a table and write the figures."""
    arguments = _arguments()
    torch.set_num_threads(1)
    start = time.time()
    specs = prompt_set(arguments.per_skill, arguments.seed, arguments.split, ALL_SKILLS)
    judged = judge_model(arguments.model, specs, arguments.candidates, arguments.steps, arguments.guidance)
    figures = {
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("torch", "diffusers")},
        "seconds": round(time.time() - start),
        "skills": {name: skill_figures([one for one in judged if one.spec.skill in group]) for name, group in _GROUPS},
        "previews": {step: preview_figures(judged, step) for step in judged[0].previews},
        "dark_pictures": sum(one.dark for one in judged),
    }
    print(tables(figures))
    print(f"dark pictures: {figures['dark_pictures']}; seconds: {figures['seconds']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


_GROUPS: list[tuple[str, Sequence[str]]] = [
    *((skill, (skill,)) for skill in ALL_SKILLS),
    ("six skills", SKILLS),
    ("hard skills", HARD_SKILLS),
]


def judge_model(folder: Path, specs: Sequence[Spec], n: int, steps: int, guidance: float) -> list[Judged]:
    """`n` candidates for each spec; candidate j of prompt k has the seed 1000 k + j."""
    pipe = load(folder)
    looks = sorted({max(1, round(share * steps)) for share in (0.25, 0.5, 0.75)})
    prompts = [spec.prompt for spec in specs for _ in range(n)]
    seeds = [1000 * k + j for k in range(len(specs)) for j in range(n)]
    made = generate(pipe, prompts, seeds, steps=steps, guidance=guidance, look_at=looks)
    return [_judge(made, spec, slice(k * n, k * n + n)) for k, spec in enumerate(specs)]


def _judge(made: Candidates, spec: Spec, rows: slice) -> Judged:
    images = made.images[rows]
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    previews = {step: _verdicts(pictures[rows], spec) for step, pictures in made.previews.items()}
    return Judged(spec, _verdicts(images, spec), previews, int((border.mean((1, 2)) < DARK).sum()))


def _verdicts(images: NDArray[np.uint8], spec: Spec) -> tuple[Verdict, ...]:
    return verify_batch(images.astype(np.float32) / np.float32(255), [spec] * len(images))


def oracle(passes: NDArray[np.bool_], n: int) -> float:
    """Probability that `n` of the candidates, drawn without replacement, hold at least one that passes."""
    drawn = min(n, len(passes))
    return 1 - comb(len(passes) - int(passes.sum()), drawn) / comb(len(passes), drawn)


def skill_figures(judged: Sequence[Judged]) -> dict[str, float]:
    """Rates over the prompts of one skill or group."""
    passes = [np.array([verdict.correct for verdict in one.final]) for one in judged]
    return {
        "prompts": len(judged),
        "single": float(np.mean(passes)),
        "strict": float(np.mean([[verdict.strict for verdict in one.final] for one in judged])),
        "best_of_4": float(np.mean([oracle(row, 4) for row in passes])),
        "best_of_16": float(np.mean([oracle(row, 16) for row in passes])),
    }


def preview_figures(judged: Sequence[Judged], step: int) -> dict[str, float]:
    """Agreement of the verdicts after `step` steps with the final ones, over all prompts."""
    agree = [
        now.correct == end.correct for one in judged for now, end in zip(one.previews[step], one.final, strict=True)
    ]
    correlations = [_correlation(one.previews[step], one.final) for one in judged]
    return {"agreement": float(np.mean(agree)), "correlation_within_prompt": float(np.nanmean(correlations))}


def _correlation(a: Sequence[Verdict], b: Sequence[Verdict]) -> float:
    """Pearson correlation of two score lists; nan where one of them is constant."""
    first, second = np.array([verdict.score for verdict in a]), np.array([verdict.score for verdict in b])
    return float(np.corrcoef(first, second)[0, 1]) if first.std() > 1e-6 and second.std() > 1e-6 else float("nan")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--per-skill", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=Split.__args__, default="test")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
