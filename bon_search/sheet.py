"""The contact sheet: all candidates of a run on one page, best first, the winner framed, scores under the pictures."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bon_search.result import Candidate

CELL = 160  # pixels; small pictures are enlarged to it, large ones reduced
GAP = 12
LABEL = 22
INK, FAINT, GOLD, PAPER = "#1b1b1f", "#77777f", "#e0a100", "#ffffff"


def contact_sheet(candidates: Sequence[Candidate], title: str) -> Image.Image:
    """Draw ranked candidates, best first.

    Args:
        candidates: At least one, best first.
        title: Printed above, usually the prompt; wrapped to the width.
    """
    columns = min(8, max(1, math.ceil(math.sqrt(len(candidates)))))
    rows = math.ceil(len(candidates) / columns)
    width = GAP + columns * (CELL + GAP)
    lines = textwrap.wrap(title, max(12, width // 9))[:4]
    top = GAP + 20 * len(lines)
    sheet = Image.new("RGB", (width, top + GAP + rows * (CELL + LABEL + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for k, line in enumerate(lines):
        draw.text((GAP, GAP // 2 + 20 * k), line, INK, ImageFont.load_default(15))
    for k, candidate in enumerate(candidates):
        corner = (GAP + k % columns * (CELL + GAP), top + GAP + k // columns * (CELL + LABEL + GAP))
        _paste(sheet, draw, candidate, corner, rank=k + 1)
    return sheet


def _paste(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, candidate: Candidate, corner: tuple[int, int], rank: int
) -> None:
    x, y = corner
    enlarge = max(candidate.image.size) < CELL
    fitted = candidate.image.convert("RGB")
    scale = CELL / max(fitted.size)
    size = (max(1, round(fitted.width * scale)), max(1, round(fitted.height * scale)))
    fitted = fitted.resize(size, Image.Resampling.BICUBIC if enlarge else Image.Resampling.LANCZOS)
    sheet.paste(fitted, (x + (CELL - size[0]) // 2, y + (CELL - size[1]) // 2))
    best = rank == 1 and not math.isnan(candidate.score)
    if best:
        draw.rectangle((x - 4, y - 4, x + CELL + 3, y + CELL + 3), outline=GOLD, width=4)
    score = "no score" if math.isnan(candidate.score) else f"{candidate.score:.4g}"
    draw.text((x, y + CELL + 4), f"#{rank}  {score}", GOLD if best else INK, ImageFont.load_default(13))
    seed = f"seed {candidate.seed}"
    font = ImageFont.load_default(11)
    draw.text((x + CELL - draw.textlength(seed, font=font), y + CELL + 5), seed, FAINT, font)
