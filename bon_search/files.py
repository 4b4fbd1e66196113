"""The run folder: every candidate as it is finished, then the winner, the contact sheet and result.json.

A file appears under its name only when it is whole (written beside, then renamed), and result.json is rewritten after
each of them, so a run that is killed can still be read and remade.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bon_search.errors import SearchError
from bon_search.png import number, text_chunks

if TYPE_CHECKING:
    from bon_search.result import Candidate, Recipe, SearchResult

SCHEMA = 1
RESULT, BEST, SHEET = "result.json", "best.png", "contact-sheet.png"
FRAME_MS = 62.5  # 16 frames a second


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds one run: best.png, candidates/, contact-sheet.png, result.json."""

    path: Path
    made: bool = True  # by us, so that we may remove it again

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make the folder, before any work is done.

        Raises:
            SearchError: It already holds a run, or cannot be made or written.
        """
        if _exists(path / RESULT):
            raise SearchError(f"{path} already holds a run, which stays as it is; choose another folder with --out.")
        made = not _exists(path)
        try:
            (path / "candidates").mkdir(parents=True, exist_ok=True)
            _write(path / "candidates" / ".probe", b"")
            (path / "candidates" / ".probe").unlink()
        except OSError as error:
            raise SearchError(
                f"{path} cannot be written ({reason(error)}); choose another folder with --out."
            ) from error
        return cls(path, made)

    @classmethod
    def next_free(cls, parent: Path, prompt: str) -> RunFolder:
        """A new numbered folder such as runs/0003-a-red-circle."""
        taken = [int(m[1]) for p in parent.glob("[0-9]*-*") if (m := re.match(r"(\d+)-", p.name))]
        path = parent / f"{max(taken, default=0) + 1:04d}-{slug(prompt)}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # another run has just taken the number
            return cls.next_free(parent, prompt)
        except OSError:
            return cls.create(path)  # says why
        return replace(cls.create(path), made=True)

    def picture(self, candidate: Candidate) -> Path:
        """Where a candidate's picture lies."""
        return self.path / "candidates" / f"seed-{candidate.seed}.png"

    def add(self, candidate: Candidate, recipe: Recipe) -> Path:
        """Write one finished candidate.

        Raises:
            SearchError: The disk is full or the folder has become unwritable; what is already there stays.
        """
        return self._put(self.picture(candidate), encoded(candidate, recipe))

    def checkpoint(self, result: SearchResult) -> None:
        """Write result.json of what is finished so far."""
        self._put(self.path / RESULT, json.dumps(as_json(result), indent=1, ensure_ascii=False).encode())

    def discard(self) -> None:
        """Remove the folder again if it was made for this run and nothing was written into it."""
        for folder in (self.path / "candidates", *([self.path] if self.made else [])):
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()

    def finish(self, result: SearchResult) -> Path | None:
        """Write result.json, contact sheet and best.png; returns the path of best.png, None if nothing has a score."""
        from bon_search.sheet import contact_sheet

        self.checkpoint(result)
        winner = result.candidates[0]
        best = None if math.isnan(winner.score) else self._put(self.path / BEST, encoded(winner, result.recipe))
        sheet = io.BytesIO()
        contact_sheet(result.candidates, result.recipe.prompt).save(sheet, "PNG")
        self._put(self.path / SHEET, sheet.getvalue())
        return best

    def _put(self, path: Path, content: bytes) -> Path:
        try:
            _write(path, content)
        except OSError as error:
            raise SearchError(
                f"{path} cannot be written ({reason(error)}); what is already in {self.path} stays: free some space or "
                "choose another folder with --out."
            ) from error
        return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, or a parent that cannot be read: writing will tell
        return False


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def encoded(candidate: Candidate, recipe: Recipe) -> bytes:
    """The PNG of a candidate, recipe inside; a video becomes an animated PNG."""
    buffer = io.BytesIO()
    film = {"save_all": True, "append_images": candidate.frames[1:], "duration": FRAME_MS, "loop": 0}
    candidate.image.save(
        buffer, "PNG", pnginfo=text_chunks(candidate, recipe), **film if len(candidate.frames) > 1 else {}
    )
    return buffer.getvalue()


def as_json(result: SearchResult) -> dict[str, object]:
    """A result as result.json holds it; candidates are in rank order."""
    rows = [
        {
            "rank": rank,
            "seed": candidate.seed,
            "score": number(candidate.score),
            "file": f"candidates/seed-{candidate.seed}.png",
            "size": list(candidate.image.size),
            "pixels": candidate.pixels,
        }
        for rank, candidate in enumerate(result.candidates, 1)
    ]
    from bon_search.opinions import agreement_of

    cost: dict[str, object] = {**asdict(result.cost), "evaluations_per_nfe": result.evaluations_per_nfe}
    if result.handovers:
        cost["handovers"] = list(result.handovers)
    report: dict[str, object] = {"report": result.report} if result.report else {}
    if result.opinions:
        report["opinions"] = [{**asdict(each), "agreement": number(each.agreement)} for each in result.opinions]
        found = agreement_of(result)
        report["agreement"] = {
            "rewards": list(found.rewards), "spearman": [[number(value) for value in row] for row in found.spearman]
        }  # fmt: skip
    return {"schema": SCHEMA, "recipe": asdict(result.recipe), "cost": cost, **report, "candidates": rows}


def slug(prompt: str, length: int = 40) -> str:
    """A prompt as part of a folder name: its first words in lower case."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:length].strip("-") or "run"


def reason(error: OSError) -> str:
    """What the system says, without number or path."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
