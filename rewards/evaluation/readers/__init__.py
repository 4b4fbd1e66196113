"""Readers of public benchmarks in the layouts in which people have them on disk, and of the toolkit's own files.

Nothing is downloaded. What each was checked against stands in its module.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from rewards.evaluation.readers.labels import smid, unsafebench
from rewards.evaluation.readers.pairs import genai_arena, mj_bench, pick_a_pic
from rewards.evaluation.readers.rankings import hpdv2, imagereward
from rewards.evaluation.readers.ratings import genai_bench, tifa160
from rewards.evaluation.readers.tables import columns, parquet_files, split_of
from rewards.evaluation.records import Data, DataError, read_own
from rewards.training.records import Fault

Reader: TypeAlias = Callable[[Path, Path | None], tuple[Data, list[Fault]]]


@dataclass(frozen=True)
class Format:
    """One layout.

    Attributes:
        read: its reader, of the file or folder and of where pictures lie.
        fields: that its records have and those of the other layouts have not all.
        file: what its file is called, to be found in a folder; tables in parquet need no name.
        whole: whether the splits in one folder are parts of one data set.
    """

    read: Reader
    fields: frozenset[str]
    file: str = ""
    whole: bool = False


FORMATS = {
    "mj-bench": Format(mj_bench, frozenset({"image0", "image1", "caption", "label"}), whole=True),
    "pick-a-pic": Format(pick_a_pic, frozenset({"jpg_0", "jpg_1", "caption", "label_0"})),
    "genai-arena": Format(genai_arena, frozenset({"left_image", "right_image", "vote_type"})),
    "imagereward": Format(imagereward, frozenset({"generations", "ranking"}), "test.json"),
    "hpdv2": Format(hpdv2, frozenset({"image_path", "rank"}), "test.json"),
    "tifa160": Format(tifa160, frozenset({"text_id", "human_avg"}), "human_annotations.json"),
    "genai-bench": Format(genai_bench, frozenset({"prompt", "models"}), "genai_image.json"),
    "unsafebench": Format(unsafebench, frozenset({"image", "safety_label"})),
    "smid": Format(smid, frozenset({"moral_mean"}), "SMID_norms.csv"),
    "own": Format(read_own, frozenset()),
}


def read(source: Path, name: str = "auto", images: Path | None = None) -> tuple[Data, list[Fault], str]:
    """The data in a file or folder, what of it cannot be used, and the name of its layout.

    Args:
        source: the file, a folder that holds it, or of parquet files in a folder the split FOLDER/NAME.
        name: one of `FORMATS`; "auto" tells by the fields.
        images: where pictures lie, if not where the layout has them.

    Raises:
        RewardError: it cannot be read, it holds several splits, such as a test and what is trained on, or `name` is no
            layout.
    """
    if name not in (*FORMATS, "auto"):
        raise DataError(f"Got the format {name!r}; expected auto, or one of {', '.join(FORMATS)}.")
    if not source.exists() and not parquet_files(source):
        raise DataError(f"There is no {source}; give a file or folder of preferences, ratings or labels.")
    file = _file(source, name)
    found = _told(file) if name == "auto" else name
    splits = sorted({split_of(each) for each in parquet_files(file)})
    if len(splits) > 1 and not FORMATS[found].whole:
        one = parquet_files(file)[0].parent / next((name for name in splits if "test" in name), splits[0])
        raise DataError(f"{source} holds the splits {', '.join(splits)}; give one of them, for example {one}.")
    data, faults = FORMATS[found].read(file, images)
    return data, faults, found


def _file(source: Path, name: str) -> Path:
    """The file with the annotations, if `source` is the folder that holds it."""
    if not source.is_dir() or parquet_files(source):
        return source
    known = [FORMATS[name].file] if name != "auto" else [each.file for each in FORMATS.values()]
    return next((source / file for file in known if file and (source / file).is_file()), source)


def _told(source: Path) -> str:
    fields = columns(source)
    return next((name for name, each in FORMATS.items() if each.fields <= fields))
