"""Public benchmarks of pairs: MJ-Bench, Pick-a-Pic, and GenAI-Bench of GenAI-Arena.

Checked against: the dataset card of MJ-Bench/MJ-Bench on the hub (caption, image0, image1, label, category,
subcategory; label 0 says that image0 is preferred), the loop of its `inference.py`, and programs that read its files
data/safety.parquet and so on (there `info` is the subcategory, or empty); the card of
yuvalkirstain/pickapic_v2 (names and types of all columns; jpg_0 and jpg_1 are the files' bytes); the votes that
TIGER-Lab/GenAI-Bench's own evaluation tells apart (leftvote, rightvote, tievote, bothbad_vote; its folder
image_generation holds two splits, of which programs read test_v1). The data itself is gated or too large and was not
read.
"""

from collections.abc import Callable
from pathlib import Path

from rewards.evaluation.readers.tables import placed, split_of, table_rows, text_of
from rewards.evaluation.records import Data, DataError, Preference, data_of
from rewards.training.records import Fault, Pair, Row, Side


def mj_bench(source: Path, images: Path | None = None) -> tuple[Data, list[Fault]]:
    """MJ-Bench: one of its splits or all, as parquet or exported with paths; the category is the subcategory, if any.

    Where rows name none, the split (alignment, safety, quality, bias) in the file's name is the category.
    """

    def read(row: Row, where: str, roots: list[Path]) -> Preference | None:
        kind = row.get("subcategory") or row.get("info") or row.get("category") or _perspective(where)
        label = str(row.get("label")).removesuffix(".0")
        if label not in ("0", "1", "tie", "0.5"):
            raise DataError(f"has the label {row.get('label')!r:.60}; expected 0 or 1, the number of the better image.")
        winner = {"0": 0, "1": 1}.get(label)
        return _pair(row, where, roots, ("image0", "image1"), "caption", winner, str(kind or ""))

    return _read(source, images, read)


def pick_a_pic(source: Path, images: Path | None = None) -> tuple[Data, list[Fault]]:
    """Pick-a-Pic v1 or v2: label_0 is 1 if picture 0 was preferred, 0 if picture 1, and 0.5 for a tie.

    Ties and rows without a label are no preferences and are left out; the published accuracy of PickScore gives half
    a point for them.
    """

    def read(row: Row, where: str, roots: list[Path]) -> Preference | None:
        if str(row.get("has_label", "True")) in ("False", "false", "0"):
            return None
        label = str(row.get("label_0")).removesuffix(".0")
        if label not in ("0", "1", "0.5"):
            raise DataError(f"has the label_0 {row.get('label_0')!r:.60}; expected 0, 0.5 or 1.")
        return _pair(row, where, roots, ("jpg_0", "jpg_1"), "caption", {"1": 0, "0": 1}.get(label))

    return _read(source, images, read)


def genai_arena(source: Path, images: Path | None = None) -> tuple[Data, list[Fault]]:
    """GenAI-Bench of GenAI-Arena (TIGER-Lab), its task of image generation: votes for the left or the right picture.

    Votes for neither are no preferences and are left out.
    """

    def read(row: Row, where: str, roots: list[Path]) -> Preference | None:
        vote = row.get("vote_type")
        if vote not in ("leftvote", "rightvote", "tievote", "bothbad_vote"):
            raise DataError(f"has the vote_type {vote!r:.60}; expected leftvote, rightvote, tievote or bothbad_vote.")
        winner = {"leftvote": 0, "rightvote": 1}.get(str(vote))
        return _pair(row, where, roots, ("left_image", "right_image"), "prompt", winner)

    return _read(source, images, read)


def _read(
    source: Path, images: Path | None, read: Callable[[Row, str, list[Path]], Preference | None]
) -> tuple[Data, list[Fault]]:
    roots = [images or source.parent, source.parent, source]
    found: list[Preference] = []
    faults: list[Fault] = []
    for where, row in table_rows(source):
        if isinstance(row, Fault):
            faults.append(row)
            continue
        try:
            preference = read(row, where, roots)
        except DataError as error:
            faults.append(Fault(where, str(error)))
            continue
        found += [preference] if preference else []
    return data_of(found), faults


def _pair(
    row: Row,
    where: str,
    roots: list[Path],
    names: tuple[str, str],
    caption: str,
    winner: int | None,
    category: str = "",
) -> Preference | None:
    """The preference for picture `winner`; None where nobody won."""
    if winner is None:
        return None
    prompt = text_of(row, caption)
    sides = [Side(placed(row.get(name), roots), prompt) for name in names]
    return Preference(Pair(sides[winner], sides[1 - winner], where=where), category, prompt or where)


def _perspective(where: str) -> str:
    """The split of a parquet file, each of which is one perspective."""
    file = Path(where.partition(", row")[0])
    return split_of(file) if file.suffix == ".parquet" else ""
