"""Public benchmarks of rated pictures: TIFA160 and GenAI-Bench of t2v_metrics.

Checked against: TIFA's `human_annotations/human_annotations.json` itself (text_id, image_path, text, human_scores,
human_avg, 1 to 5) and its README; the class `GenAIBench_Image` in t2v_metrics' `dataset.py` and its evaluation
(genai_image.json: number → prompt and models, model → ratings 1 to 5, of which the mean counts; pictures as
MODEL/NUMBER.jpeg; genai_skills.json: skill → numbers of prompts).
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from rewards.evaluation.readers.tables import json_of, placed, text_of
from rewards.evaluation.records import Data, DataError, Opinion, data_of, rating_of
from rewards.training.records import Fault, Row, Side


def tifa160(source: Path, images: Path | None = None) -> tuple[Data, list[Fault]]:
    """TIFA160: `human_annotations.json`, pictures in annotated_images beside it or in `images`.

    The category is where the prompt is from, for example coco.
    """
    roots = [images or source.parent / "annotated_images", source.parent]
    found: list[Opinion] = []
    faults: list[Fault] = []
    for name, row in _entries(source):
        try:
            rating = rating_of(row.get("human_avg")) if isinstance(row, Mapping) else None
            if rating is None or rating != rating:
                raise DataError("has no number as human_avg.")
            prompt, kind = text_of(row, "text"), str(row.get("text_id") or "")
            side = Side(placed(row.get("image_path"), roots), prompt)
            found.append(Opinion(side, rating=rating, category=kind.rpartition("_")[0], group=kind or prompt))
        except DataError as error:
            faults.append(Fault(f"{source}, {name}", str(error)))
    return data_of(found), faults


def genai_bench(source: Path, images: Path | None = None) -> tuple[Data, list[Fault]]:
    """GenAI-Bench (527 or 1600 prompts): `genai_image.json`, pictures in a folder for each model beside it.

    The category is basic or advanced, if genai_skills.json is there.
    """
    root = images or source.parent
    skills = _skills(source.with_name("genai_skills.json"))
    found: list[Opinion] = []
    faults: list[Fault] = []
    for number, row in _entries(source):
        try:
            found += _rated(row, number, root, skills.get(number, ""))
        except DataError as error:
            faults.append(Fault(f"{source}, {number}", str(error)))
    return data_of(found), faults


def _entries(source: Path) -> list[tuple[str, Row]]:
    whole = json_of(source)
    if not isinstance(whole, dict):
        raise DataError(f"{source} holds a list; expected an object with an entry for each picture or prompt.")
    return list(whole.items())


def _rated(row: Row, number: str, root: Path, category: str) -> list[Opinion]:
    models = row.get("models") if isinstance(row, Mapping) else None
    if not isinstance(models, Mapping):
        raise DataError("has no models with ratings.")
    prompt = text_of(row, "prompt")
    return [
        Opinion(
            Side(placed(f"{model}/{number}.jpeg", [root]), prompt), rating=_mean(said), category=category, group=number
        )
        for model, said in models.items()
    ]


def _mean(said: object) -> float:
    numbers = [rating_of(each) for each in said] if isinstance(said, list) else [rating_of(said)]
    if not numbers or any(each is None or each != each for each in numbers):
        raise DataError(f"has ratings that are no numbers ({said!r:.60}).")
    return fmean(each or 0.0 for each in numbers)


def _skills(file: Path) -> dict[str, str]:
    """Which prompts are basic and which advanced, by their number of five digits."""
    if not file.is_file():
        return {}
    skills = json_of(file)
    known = ((kind, number) for kind in ("basic", "advanced") for number in skills.get(kind, ()))
    return {f"{int(number):05d}": kind for kind, number in known}
