"""Does the embedded LLaVA-Reward earn its place? Held-out prompts, judged by the exact verifier.

    python reward_evaluate.py candidates ../../pipelines/embedded RUN/eval        # 112 prompts, 16 candidates each
    python reward_evaluate.py figures POOL RUN/eval CHECKPOINT... --json figures.json

For each checkpoint: the pass rate of the candidate it likes best among 4 and 16, beside a random one and the oracle's;
how often a candidate that passes scores above one that fails, with the prompt and with another prompt of the same
skill; and the order of twins (one render, a true and a false sentence) and of renders (one sentence, two renders), with
a wrong sentence too, where a reward that reads must fall to chance.
"""

import argparse
import json
from collections.abc import Sequence
from math import comb
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from reward_ground import test_statements
from reward_model import WORDS
from reward_pictures import Pool
from reward_samples import Group, load_samples
from t2i_samples import write
from t2i_sampling import load

from rewards import load_reward
from rewards.base import Reward
from rewards.shapes.captions import HARD_SKILLS, SKILLS, parse
from rewards.shapes.scenes import prompt_set
from rewards.shapes.verifier import judge

PER_SKILL, CANDIDATES, GUIDANCE = 20, 16, 2.0
TWINS = 400

Figures = dict[str, float]


def main() -> None:
    """Make the candidates, or score them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("candidates")
    making.add_argument("model", type=Path)
    making.add_argument("out", type=Path)
    making.add_argument("--seed", type=int, default=0, help="of the prompts and the noise")
    making.add_argument("--part", default="0:1", help="which of how many processes")
    scoring = commands.add_parser("figures")
    scoring.add_argument("pool", type=Path)
    scoring.add_argument("candidates", type=Path)
    scoring.add_argument("checkpoints", type=Path, nargs="+")
    scoring.add_argument("--selection-only", action="store_true", help="only the choice among candidates")
    scoring.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "candidates":
        make_candidates(options.model, options.out, options.seed, *map(int, options.part.split(":")))
        return
    figures = {
        str(folder): evaluate(folder, options.candidates, None if options.selection_only else options.pool)
        for folder in options.checkpoints
    }
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def make_candidates(model: Path, out: Path, seed: int, part: int, parts: int) -> None:
    """A file for each skill: 20 held-out prompts (single_object has 12) of 16 candidates; noise used nowhere else."""
    out.mkdir(parents=True, exist_ok=True)
    pipe = load(model)
    for number, skill in enumerate(SKILLS):
        path = out / f"samples-{skill}.npz"
        if path.exists() or number % parts != part:
            continue
        specs = list(dict.fromkeys(prompt_set(PER_SKILL, seed=seed, split="test", skills=[skill])))
        chosen = [spec for spec in specs for _ in range(CANDIDATES)]
        write(
            path, pipe, chosen, [500_000 + 20_000 * seed + 1000 * number + row for row in range(len(chosen))], GUIDANCE
        )


def evaluate(folder: Path, candidates: Path, renders: Path | None) -> dict[str, Figures]:
    """The figures of one checkpoint; without `renders` only those of the candidates."""
    reward = load_reward("llava-reward", checkpoint=folder, batch_size=32)
    pool, groups = load_samples(candidates.glob("samples-*.npz"))
    scores = [score(reward, pool, group.rows, group.prompt) for group in groups]
    figures = {name: selection(groups, scores, skills) for name, skills in _SKILLS.items()}
    figures["candidates"] = {"pass above fail": order(groups, scores)}
    if renders is None:
        return figures
    wrong = [score(reward, pool, group.rows, another(groups, index)) for index, group in enumerate(groups)]
    figures["candidates"]["with a wrong prompt"] = order(groups, wrong)
    pool = Pool.read(renders.glob("test-*.npz"))
    figures["twins"] = twins_in_order(reward, pool)
    figures["renders"] = renders_in_order(reward, pool)
    return figures


_SKILLS = {**{skill: (skill,) for skill in SKILLS}, "six skills": SKILLS, "hard skills": HARD_SKILLS}


def score(reward: Reward, pool: Pool, rows: Sequence[int], prompt: str) -> NDArray[np.float64]:
    """Scores of some pictures against one prompt."""
    return reward(pool.images[list(rows)], [prompt] * len(rows)).double().numpy()


def another(groups: Sequence[Group], index: int) -> str:
    """The prompt of the next group of the same skill."""
    same = [group.prompt for group in groups if group.skill == groups[index].skill]
    return same[(same.index(groups[index].prompt) + 1) % len(same)]


def selection(groups: Sequence[Group], scores: Sequence[NDArray[np.float64]], skills: Sequence[str]) -> Figures:
    """Pass rates at one candidate, and at the best of 4 and 16 for the reward and for an oracle."""
    chosen = [(group.correct, values) for group, values in zip(groups, scores, strict=True) if group.skill in skills]
    rates = {"prompts": float(len(chosen)), "random": float(np.mean([correct.mean() for correct, _ in chosen]))}
    for n in (4, 16):
        rates[f"best of {n}"] = float(np.mean([best_of(correct, values, n) for correct, values in chosen]))
        rates[f"oracle of {n}"] = float(np.mean([best_of(correct, correct, n) for correct, _ in chosen]))
    return rates


def best_of(correct: NDArray[np.bool_], scores: NDArray[np.generic], n: int) -> float:
    """Probability that the best-scored of `n` candidates, drawn without replacement, passes; ties to the first."""
    ranked = correct[np.argsort(-scores.astype(float), kind="stable")].astype(float)
    total = len(ranked)
    return sum(ranked[place] * comb(total - 1 - place, n - 1) for place in range(total - n + 1)) / comb(total, n)


def order(groups: Sequence[Group], scores: Sequence[NDArray[np.float64]]) -> float:
    """Share of pairs of one prompt, one that passes and one that fails, in the right order; mean over prompts."""
    pairs = [(group.correct, values) for group, values in zip(groups, scores, strict=True) if group.mixed]
    return float(np.mean([(values[correct][:, None] > values[~correct][None]).mean() for correct, values in pairs]))


def twins_in_order(reward: Reward, pool: Pool) -> Figures:
    """One picture, a true and a false sentence; overall and by what makes it false, with Bernoulli standard error."""
    rows, told = test_statements(pool, range(TWINS))
    prompts = [" ".join(WORDS[word] for word in said.words[:-1]) for pair in told for said in pair]
    pictures = pool.images[np.repeat(rows, 2)]
    scores = reward(pictures, prompts).view(-1, 2)
    right = (scores[:, 0] > scores[:, 1]).numpy()
    figures = {"pairs": float(len(right)), "all": float(right.mean())}
    for change in sorted({pair[1].change for pair in told}):
        figures[change] = float(right[[pair[1].change == change for pair in told]].mean())
    return figures


def renders_in_order(reward: Reward, pool: Pool) -> Figures:
    """One sentence and two renders, one of which it is true of; then the same renders with a sentence about a third."""
    rows, told = test_statements(pool, range(TWINS))
    rng = Random(0)
    prompts = [" ".join(WORDS[word] for word in pair[0].words[:-1]) for pair in told]
    pairs = []
    for row, prompt in zip(rows, prompts, strict=True):
        for _ in range(30):
            other = rng.choice(rows)
            if not judge(pool.detected(other), parse(prompt)).correct:
                pairs.append((row, other, prompt, rng.choice(prompts)))
                break
    mine, others, said, shuffled = zip(*pairs, strict=True)
    compare = lambda texts: (  # noqa: E731
        (reward(pool.images[list(mine)], texts) > reward(pool.images[list(others)], texts)).float().mean().item()
    )
    return {"pairs": float(len(pairs)), "right prompt": compare(said), "wrong prompt": compare(shuffled)}


if __name__ == "__main__":
    main()
