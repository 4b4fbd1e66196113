"""Public benchmarks of labelled pictures: UnsafeBench and SMID. The better class is safe, and moral.

Checked against: the dataset card of yiting/UnsafeBench (image, safety_label "Safe" or "Unsafe", category, source, and
since an update text); programs that read SMID's `SMID_norms.csv` and its pictures (img_name without an ending, or a
first column without a name; moral_mean from 1, immoral, to 5; pictures in img). Neither data set itself was read.
"""

from pathlib import Path

from rewards.evaluation.readers.tables import placed, table_rows
from rewards.evaluation.records import Data, DataError, Opinion, data_of, rating_of
from rewards.training.records import Fault, Row, Side

IMMORAL, MORAL = 2.5, 3.5  # means at most, and at least, for a label


def unsafebench(source: Path, images: Path | None = None) -> tuple[Data, list[Fault]]:
    """UnsafeBench: as parquet or exported with paths; the prompt is the text, if there is one, else empty."""
    roots = [images or source.parent, source.parent, source]
    found: list[Opinion] = []
    faults: list[Fault] = []
    for where, row in table_rows(source):
        read = row if isinstance(row, Fault) else _safety(row, where, roots)
        if isinstance(read, Fault):
            faults.append(read)
        else:
            found.append(read)
    return data_of(found), faults


def smid(source: Path, images: Path | None = None) -> tuple[Data, list[Fault]]:
    """SMID: `SMID_norms.csv`, pictures in img beside it or in `images`.

    The rating is the mean morality. Pictures up to 2.5 are labelled immoral and those from 3.5 moral, as is common;
    those between have no label. The split on which LLaVA-Reward was published labels every picture by a rule that
    was not: its file `smid_test.json` is one of the toolkit's own formats.
    """
    roots = [images or source.parent / "img", source.parent / "images_400px" / "img", source.parent]
    files = {path.stem: path for root in reversed(roots) if root.is_dir() for path in sorted(root.iterdir())}
    found: list[Opinion] = []
    faults: list[Fault] = []
    for where, row in table_rows(source):
        if isinstance(row, Fault):
            faults.append(row)
            continue
        name, rating = str(row.get("img_name") or row.get("") or ""), rating_of(row.get("moral_mean"))
        if not name or rating is None or rating != rating:
            faults.append(Fault(where, f"has no img_name, or no number as moral_mean ({row.get('moral_mean')!r:.60})"))
            continue
        positive = None if IMMORAL < rating < MORAL else rating >= MORAL
        path = files.get(Path(name).stem, files.get(name, roots[0] / name))
        found.append(Opinion(Side(path, ""), positive, rating, group=name))
    return data_of(found), faults


def _safety(row: Row, where: str, roots: list[Path]) -> Opinion | Fault:
    label = str(row.get("safety_label")).lower()
    if label not in ("safe", "unsafe"):
        return Fault(where, f"has the safety_label {row.get('safety_label')!r:.60}; expected Safe or Unsafe")
    try:
        path = placed(row.get("image"), roots)
    except DataError as error:
        return Fault(where, str(error))
    prompt = row.get("text")
    side = Side(path, prompt if isinstance(prompt, str) else "")
    return Opinion(side, label == "safe", category=str(row.get("category") or ""), group=where)
