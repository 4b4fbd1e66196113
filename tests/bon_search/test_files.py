"""Run folders and what other tools read in them."""

import errno
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image, ImageColor

from bon_search import files
from bon_search.errors import SearchError
from bon_search.files import RunFolder, encoded, slug
from bon_search.recipe import read_remake
from bon_search.result import Candidate, Recipe, SearchResult
from bon_search.sheet import CELL, GAP, GOLD, contact_sheet
from tests.bon_search.toy import recipe, toy_run


def candidate(seed: int, score: float, color: str = "red", size: tuple[int, int] = (64, 48)) -> Candidate:
    return Candidate((Image.new("RGB", size, color),), seed, score)


@pytest.fixture
def result() -> SearchResult:
    run = toy_run(5, batch_size=2)
    list(run)
    return run.result


def test_save_writes_the_whole_folder(result: SearchResult, tmp_path: Path) -> None:
    best = result.save(tmp_path / "runs" / "first")
    folder = best.parent
    assert sorted(p.name for p in folder.iterdir()) == ["best.png", "candidates", "contact-sheet.png", "result.json"]
    assert sorted(p.name for p in (folder / "candidates").iterdir()) == [f"seed-{seed}.png" for seed in range(5)]
    assert Image.open(best).tobytes() == result.best.image.tobytes()
    data = json.loads((folder / "result.json").read_text())
    assert data["recipe"] == json.loads(json.dumps(asdict(result.recipe)))
    assert [row["seed"] for row in data["candidates"]] == [one.seed for one in result.candidates]
    assert [row["score"] for row in data["candidates"]] == [one.score for one in result.candidates]
    assert data["cost"]["nfe"] == result.cost.nfe


def test_a_run_is_never_overwritten(result: SearchResult, tmp_path: Path) -> None:
    result.save(tmp_path)
    with pytest.raises(SearchError, match="already holds a run"):
        result.save(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SearchError, match=r"cannot be written .*--out"):
        RunFolder.create(tmp_path / "file" / "run")


def test_a_full_disk_loses_nothing_that_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path)
    folder.add(candidate(0, 1.0), recipe(2))

    def full(path: Path, content: bytes) -> None:
        path.open("wb").close()
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(files.Path, "write_bytes", full)
    with pytest.raises(SearchError, match=r"no space left.*stays"):
        folder.add(candidate(1, 2.0), recipe(2))
    assert [p.name for p in (tmp_path / "candidates").iterdir()] == ["seed-0.png"]


def test_numbered_folders_count_up(tmp_path: Path) -> None:
    names = [RunFolder.next_free(tmp_path, "A red circle, left!").path.name for _ in range(2)]
    assert names == ["0001-a-red-circle-left", "0002-a-red-circle-left"]
    assert slug("…") == "run"


def test_an_independent_reader_finds_prompt_and_settings(tmp_path: Path) -> None:
    from sd_parsers import ParserManager

    made = recipe(4, prompt="a red circle, left of a square", call={"guidance_scale": 3.5, "negative_prompt": "blur"})
    (tmp_path / "one.png").write_bytes(encoded(candidate(7, 0.25), made))
    info = ParserManager().parse(tmp_path / "one.png")
    assert info is not None
    assert [prompt.value for prompt in info.prompts] == ["a red circle, left of a square"]
    assert [prompt.value for prompt in info.negative_prompts] == ["blur"]
    (sampler,) = info.samplers
    assert (sampler.name, str(sampler.parameters["steps"]), str(sampler.parameters["cfg_scale"])) == (
        "DDIM",
        "4",
        "3.5",
    )
    assert int(str(sampler.parameters["seed"])) == 7


def test_the_picture_carries_its_recipe_as_json(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(encoded(candidate(7, 0.25), recipe(4, prompt="ein Kreis – rot 🔴")))
    text = Image.open(tmp_path / "one.png").text
    record = json.loads(text["bon_search"])
    assert (record["seed"], record["score"]) == (7, 0.25)
    assert Recipe(**record["recipe"]) == recipe(4, prompt="ein Kreis – rot 🔴")
    assert text["parameters"].splitlines()[0] == "ein Kreis – rot 🔴"


def test_a_video_becomes_an_animated_png(tmp_path: Path) -> None:
    frames = tuple(Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue"))
    (tmp_path / "film.png").write_bytes(encoded(Candidate(frames, 1, 0.5), recipe(1)))
    colors = []
    with Image.open(tmp_path / "film.png") as film:
        for k in range(film.n_frames):
            film.seek(k)
            colors.append(film.convert("RGB").getpixel((0, 0)))
    assert colors == [frame.getpixel((0, 0)) for frame in frames]


def test_the_winner_is_framed_on_the_contact_sheet() -> None:
    made = [candidate(3, 0.9), candidate(1, 0.5, "blue"), candidate(2, float("nan"), "green")]
    sheet = contact_sheet(made, "a prompt")
    gold = [pixel == ImageColor.getrgb(GOLD) for pixel in sheet.get_flattened_data()]
    assert any(gold[k] for k in range(len(gold)) if k % sheet.width < GAP + CELL + 4)
    assert not any(gold[k] for k in range(len(gold)) if k % sheet.width > GAP + CELL + 8)
    assert sheet.width == GAP + 2 * (CELL + GAP)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a result.json"),
        ('{"candidates": [], "recipe": {}}', "is not a result.json"),
        ('{"candidates": [{}], "recipe": {}}', "is not a result.json"),
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(SearchError, match=message):
        read_remake(path, 1)


def test_a_candidate_is_found_by_rank(result: SearchResult, tmp_path: Path) -> None:
    path = result.save(tmp_path).with_name("result.json")
    second = read_remake(path, 2)
    assert (second.seed, second.pixels) == (result.candidates[1].seed, result.candidates[1].pixels)
    assert second.recipe == result.recipe
    with pytest.raises(SearchError, match=r"no candidate 6.*1 \(best\) to 5"):
        read_remake(path, 6)
    with pytest.raises(SearchError, match="cannot be read"):
        read_remake(tmp_path / "missing.json", 1)


def test_of_a_run_folder_only_the_candidates_are_pictures(result: SearchResult, tmp_path: Path) -> None:
    from bon_search.score_jobs import jobs_of

    result.save(tmp_path / "run")
    names = sorted(job.image.name for job in jobs_of(tmp_path / "run"))
    assert names == [f"seed-{seed}.png" for seed in range(5)]
