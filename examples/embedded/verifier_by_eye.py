"""Checks the verifier against the eye: numbered sheets without verdicts to judge, then the comparison.

    python verifier_by_eye.py sheets pipelines/embedded runs/eye        # sheet-1.png … and verdicts.json
    python verifier_by_eye.py compare runs/eye answers.txt              # after judging

`answers.txt` holds one word a line in the order of the numbers: `p` for a pass, `f` for a fail.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from t2i_sampling import generate, load

from rewards.shapes import ALL_SKILLS
from rewards.shapes.scenes import prompt_set
from rewards.shapes.verifier import verify_batch

COLUMNS, ROWS = 8, 5
SIDE, CAPTION = 192, 46  # pixels of a picture on the sheet, and of the lines below it
SEED = 5


def make_sheets(model: Path, out: Path) -> None:
    """200 pictures of held-out prompts over all skills, one candidate each, in random order."""
    out.mkdir(parents=True, exist_ok=True)
    specs = prompt_set(29, seed=SEED, skills=ALL_SKILLS)
    order = np.random.default_rng(SEED).permutation(len(specs))[:200]
    chosen = [specs[row] for row in order]
    images = generate(load(model), [spec.prompt for spec in chosen], [500_000 + row for row in range(200)]).images
    verdicts = verify_batch(images.astype(np.float32) / np.float32(255), chosen)
    for number, start in enumerate(range(0, 200, COLUMNS * ROWS), start=1):
        rows = range(start, start + COLUMNS * ROWS)
        sheet([images[row] for row in rows], [f"{row} {chosen[row].prompt}" for row in rows]).save(
            out / f"sheet-{number}.png"
        )
    records = [
        {"prompt": spec.prompt, "skill": spec.skill, "correct": verdict.correct, "reason": verdict.reason}
        for spec, verdict in zip(chosen, verdicts, strict=True)
    ]
    (out / "verdicts.json").write_text(json.dumps(records, indent=1))


def sheet(images: Sequence[np.ndarray], captions: Sequence[str]) -> Image.Image:
    """Pictures in a grid, each over its caption."""
    page = Image.new("RGB", (COLUMNS * (SIDE + 6), ROWS * (SIDE + CAPTION)), "white")
    draw = ImageDraw.Draw(page)
    for cell, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = cell % COLUMNS * (SIDE + 6), cell // COLUMNS * (SIDE + CAPTION)
        page.paste(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC), (x, y))
        words = caption.replace("a photo of ", "").split(" and ")
        draw.multiline_text(
            (x + 2, y + SIDE + 2), " and\n".join(words) if len(caption) > 30 else " and ".join(words), "black"
        )
    return page


def compare(folder: Path, answers: Path) -> None:
    """Agreement, and every picture on which verifier and eye differ."""
    records = json.loads((folder / "verdicts.json").read_text())
    eye = [word == "p" for word in answers.read_text().split()]
    if len(eye) != len(records):
        raise SystemExit(f"{answers} holds {len(eye)} answers; expected {len(records)}.")
    both = [(record["correct"], seen) for record, seen in zip(records, eye, strict=True)]
    print(f"agreement {np.mean([a == b for a, b in both]):.3f}")
    for correct, seen in ((True, True), (True, False), (False, True), (False, False)):
        print(f"verifier {correct}, eye {seen}: {both.count((correct, seen))}")
    for number, (record, seen) in enumerate(zip(records, eye, strict=True)):
        if record["correct"] != seen:
            print(number, record["prompt"], "| eye passes:" if seen else "| eye fails", record["reason"])


def main() -> None:
    """Make the sheets, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["sheets", "compare"])
    parser.add_argument("paths", type=Path, nargs=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    {"sheets": make_sheets, "compare": compare}[arguments.task](*arguments.paths)


if __name__ == "__main__":
    main()
