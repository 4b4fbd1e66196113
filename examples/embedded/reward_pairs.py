"""Preferences of the shapes world as `train-reward` and `evaluate-reward` read them: pairs.jsonl, and its pictures.

    python reward_pairs.py alignment POOL SAMPLES OUT --seed 0   # who shows what the sentence says, by the verifier
    python reward_pairs.py fidelity OUT --pairs 6000 --seed 0    # who is undamaged, whatever the sentence

Kinds of alignment pairs, which stand as the category in each row: `candidates`, two candidates of one prompt, of which
the verifier passes one; `twins`, one picture with a true sentence and with one that a small change made false;
`renders`, one sentence, a scene of which it is true and one of which its twin is; `any`, a true statement and a false
one about different pictures of one style, which makes scores comparable between prompts. Kinds of fidelity pairs are
the kinds of damage. With --split test the sentences name combinations that training never sees.
"""

import argparse
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from multiprocessing import Pool as Processes
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from reward_data import WEIGHTS, falsehood, twins
from reward_pictures import Pool
from reward_pool import damaged
from reward_samples import Group, load_samples

from rewards.shapes.captions import Spec
from rewards.shapes.render import render
from rewards.shapes.scenes import Split, random_scene, random_spec, scene_for, true_spec
from rewards.shapes.verifier import verify

Bytes = NDArray[np.uint8]
VISIBLE = 5.0  # of 255, the least root mean square change that counts as damage


class Side(NamedTuple):
    """A picture and what is said of it."""

    image: Bytes
    prompt: str


class Pair(NamedTuple):
    """Two sides of which the first is preferred, and the kind of the difference."""

    chosen: Side
    rejected: Side
    kind: str


def main() -> None:
    """Write one kind of preferences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="perspective", required=True)
    alignment, fidelity = commands.add_parser("alignment"), commands.add_parser("fidelity")
    alignment.add_argument("pool", type=Path)
    alignment.add_argument("samples", type=Path)
    alignment.add_argument("--per-prompt", type=int, default=4, help="pairs of candidates of one prompt, at most")
    for name, count in (("twins", 3000), ("renders", 3000), ("any", 1000)):
        alignment.add_argument(f"--{name}", type=int, default=count, help=f"pairs (default: {count})")
    fidelity.add_argument("--pairs", type=int, default=6000)
    fidelity.add_argument(
        "--strength", type=float, default=1.0, help="of the damage, 0 to 1; 0.1 is faint (default: 1)"
    )
    fidelity.add_argument("--wrong", type=float, default=0.5, help="share of sentences about another scene")
    for command in (alignment, fidelity):
        command.add_argument("out", type=Path)
        command.add_argument("--split", choices=("train", "test"), default="train")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    if options.perspective == "fidelity" and not 0 < options.strength <= 1:
        parser.error(f"--strength {options.strength} is out of range; expected above 0 and up to 1")
    jobs = list(alignment_jobs(options) if options.perspective == "alignment" else fidelity_jobs(options))
    (options.out / "pictures").mkdir(parents=True, exist_ok=True)
    with Processes(options.processes) as processes:
        made = [each for part in processes.imap(_run, jobs) for each in part]
    rows = dict(made)  # without repeats
    wanted = {row[side] for row in rows.values() for side in ("chosen_path", "reject_path")}
    for path in {row[side] for _, row in made for side in ("chosen_path", "reject_path")} - wanted:
        (options.out / path).unlink()
    (options.out / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
    print(options.out / "pairs.jsonl", len(rows), "pairs")


class Job(NamedTuple):
    """Some pairs, a function of the seed alone; `name` is new in the folder."""

    make: Callable[..., Iterator[Pair]]
    arguments: tuple[object, ...]
    name: str
    out: Path


def _run(job: Job) -> list[tuple[bytes, dict[str, Any]]]:
    """Write the pictures of a job; its rows, each behind a hash of all that it shows."""
    rows = []
    for number, pair in enumerate(job.make(*job.arguments)):
        paths = [f"pictures/{job.name}-{number:04}-{side}.png" for side in ("chosen", "rejected")]
        same = np.array_equal(pair.chosen.image, pair.rejected.image)
        paths[1] = paths[0] if same else paths[1]
        for path, side in zip(paths[: 1 if same else 2], pair[:2], strict=False):
            Image.fromarray(side.image).save(job.out / path, compress_level=1)
        prompts = [pair.chosen.prompt, pair.rejected.prompt]
        prompt = prompts[0] if prompts[0] == prompts[1] else prompts
        row = {"chosen_path": paths[0], "reject_path": paths[1], "prompt": prompt, "category": pair.kind}
        shown = b"".join(part.image.tobytes() + part.prompt.encode() for part in pair[:2])
        rows.append((hashlib.sha256(shown).digest(), row))
    return rows


def alignment_jobs(options: argparse.Namespace) -> Iterator[Job]:
    """Of all four kinds."""
    pool, groups = load_samples(options.samples.glob("samples-*.npz"))
    both = Pool.read(options.pool.glob(f"{options.split}-*.npz")), pool
    mixed = [group for group in groups if group.mixed]
    for start in range(0, len(mixed), 50):
        images = [pool.images[list(group.rows)] for group in mixed[start : start + 50]]
        arguments = (mixed[start : start + 50], images, options.per_prompt, options.seed)
        yield Job(candidates, arguments, f"candidates-{start:05}", options.out)
    draws = Random(f"pairs-{options.seed}-{options.split}")
    for kind, count in (("twins", options.twins), ("any", options.any)):
        for start in range(0, count, 500):
            source = both[start // 500 % 2]
            rows = draws.sample(range(len(source)), min(2000, len(source)))
            part = Pool(source.images[rows], source.objects[rows])
            many = min(500, count - start)
            arguments = (part, many, kind, options.split, f"{options.seed}-{kind}-{start}")
            yield Job(statements, arguments, f"{kind}-{start:05}", options.out)
    for start in range(0, options.renders, 500):
        many = min(500, options.renders - start)
        arguments = (many, options.split, f"{options.seed}-renders-{start}")
        yield Job(renders, arguments, f"renders-{start:05}", options.out)


def fidelity_jobs(options: argparse.Namespace) -> Iterator[Job]:
    """Of all kinds of damage in turn."""
    for start in range(0, options.pairs, 500):
        many = min(500, options.pairs - start)
        arguments = (many, options.split, f"{options.seed}-fidelity-{start}", options.strength, options.wrong)
        yield Job(damages, arguments, f"fidelity-{start:05}", options.out)


def candidates(groups: list[Group], images: list[Bytes], most: int, seed: int) -> Iterator[Pair]:
    """Candidates of one prompt, one that passes and one that fails, each at most once."""
    for group, pictures in zip(groups, images, strict=True):
        rng = Random(f"{seed}-{group.prompt}")
        passed, failed = ([int(k) for k in np.flatnonzero(which)] for which in (group.correct, ~group.correct))
        rng.shuffle(passed)
        rng.shuffle(failed)
        for good, bad in list(zip(passed, failed, strict=False))[:most]:
            yield Pair(Side(pictures[good], group.prompt), Side(pictures[bad], group.prompt), "candidates")


def statements(pool: Pool, count: int, kind: str, split: Split, seed: str) -> Iterator[Pair]:
    """A true sentence and a false one: of one picture ("twins"), or of two ("any")."""
    rng = Random(seed)
    made = 0
    while made < count:
        row, other = (rng.randrange(len(pool)) for _ in range(2))
        true, false = (twins(pool.detected(number), rng, WEIGHTS, split) for number in (row, other))
        if kind == "twins" and true:
            yield Pair(Side(pool.images[row], true[0].prompt), Side(pool.images[row], true[1].prompt), kind)
            made += 1
        elif kind == "any" and true and false and row != other:
            yield Pair(Side(pool.images[row], true[0].prompt), Side(pool.images[other], false[1].prompt), kind)
            made += 1


def renders(count: int, split: Split, seed: str) -> Iterator[Pair]:
    """A scene of which a sentence is true, and one of which its twin is true and the sentence is not."""
    rng = Random(seed)
    made = 0
    while made < count:
        spec = random_spec(rng, rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0], split)
        other, _ = falsehood(spec, (), rng) if rng.random() < 0.8 else (random_spec(rng, spec.skill, split), "")
        good, bad = (_shown(each, rng) for each in (spec, other))
        if _passes(good, spec) and not _passes(bad, spec):
            yield Pair(Side(good, spec.prompt), Side(bad, spec.prompt), "renders")
            made += 1


def damages(count: int, split: Split, seed: str, strength: float, wrong: float) -> Iterator[Pair]:
    """A clean render, and the same scene damaged; less than all of the difference with a `strength` below 1.

    Each side has a sentence of its own, which tells nothing: a share `wrong` of them, drawn for each side alone, are
    about other scenes.
    """
    rng = Random(seed)
    kinds = list(DAMAGE)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        while True:
            scene, dice = random_scene(rng, split=split), rng.getrandbits(60)
            clean = render(scene, Random(dice))
            spoilt = damaged(scene, Random(dice)) if kind == "shape" else DAMAGE[kind](clean, rng)
            if np.sqrt(np.square(clean.astype(float) - spoilt).mean()) > VISIBLE:
                break
        said = [random_scene(rng, split=split) if rng.random() < wrong else scene for _ in range(2)]
        prompts = [true_spec(each, rng).prompt for each in said]
        spoilt = np.asarray(np.rint(clean + strength * (spoilt - clean.astype(float))), np.uint8)
        yield Pair(Side(clean, prompts[0]), Side(spoilt, prompts[1]), kind)


def _blur(image: Bytes, rng: Random) -> Bytes:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(0.8, 2.0))), np.uint8)


def _noise(image: Bytes, rng: Random) -> Bytes:
    grain = np.random.default_rng(rng.getrandbits(60)).normal(0, rng.uniform(8, 40), image.shape)
    return np.asarray(np.clip(image + grain, 0, 255), np.uint8)


def _blocks(image: Bytes, rng: Random) -> Bytes:
    packed = io.BytesIO()
    Image.fromarray(image).save(packed, "JPEG", quality=rng.randint(3, 20))
    return np.asarray(Image.open(packed), np.uint8)


def _ghost(image: Bytes, rng: Random) -> Bytes:
    """The picture and its shifted copy, as after a double exposure."""
    moved = np.roll(image, (rng.choice((-1, 1)) * rng.randint(3, 9), rng.choice((-1, 1)) * rng.randint(3, 9)), (0, 1))
    share = rng.uniform(0.25, 0.5)
    return np.asarray((1 - share) * image + share * moved, np.uint8)


DAMAGE: dict[str, Callable[[Bytes, Random], Bytes]] = {
    "shape": lambda image, rng: image,  # of the scene, before it is rendered
    "blur": _blur,
    "noise": _noise,
    "blocks": _blocks,
    "ghost": _ghost,
}


def _shown(spec: Spec, rng: Random) -> Bytes:
    return render(scene_for(spec, rng), rng)


def _passes(image: Bytes, spec: Spec) -> bool:
    return verify(image.astype(np.float32) / 255, spec).correct


if __name__ == "__main__":
    main()
