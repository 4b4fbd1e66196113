"""score-images from the outside: what it reads, ranks, writes, takes up again and refuses."""

import csv
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bon_search.errors import SearchError
from bon_search.pictures import prompt_inside, rgb
from bon_search.score import Failure, score_pictures
from bon_search.score_cli import main
from bon_search.score_jobs import Job, jobs_of
from bon_search.score_table import COLUMNS, Row, Table

BRIGHT = ["--reward", "pixels:brightness"]
ANY = ["--prompt", "anything", *BRIGHT]


def grey(path: Path, level: int, size: tuple[int, int] = (8, 8), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path, **options)
    return path


def png(side: int, depth: int, color: int, data: bytes) -> bytes:
    """A square PNG, put together by hand; color 0 is greyscale, 2 RGB."""
    header = struct.pack(">IIBBBBB", side, side, depth, color, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def records(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Counts:
    """Brightness; writes the size of each batch into the file named by COUNTS, and takes a while if told so."""

    name = "counts"
    absolute = True

    def __call__(self, images, prompts):  # noqa: ANN001, ANN204
        from rewards import load_reward

        with Path(os.environ["COUNTS"]).open("a") as file:
            file.write(f"{len(images)}\n")
        time.sleep(float(os.environ.get("SLOWLY", "0")))
        return load_reward("pixels:brightness")(images, prompts)


COUNTS = ["--reward", "tests.test_score_images:Counts"]


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201
    monkeypatch.setenv("COUNTS", str(tmp_path / "counts"))
    return lambda: [int(line) for line in (tmp_path / "counts").read_text().split()]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for level in (51, 204, 102, 255, 0):  # brightness 0.2, 0.8, 0.4, 1, 0
        grey(tmp_path / "pictures" / f"{level}.png", level)
    return tmp_path / "pictures"


def test_the_best_picture_goes_to_stdout(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pictures), *ANY]) == 0
    assert capsys.readouterr().out == f"{pictures / '255.png'}\n"


def test_top_and_min_print_the_table(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pictures), *ANY, "--top", "3"]) == 0
    assert capsys.readouterr().out == "".join(
        f"{s}\t{pictures / n}.png\n" for s, n in (("1", "255"), ("0.8", "204"), ("0.4", "102"))
    )
    assert main([str(pictures), *ANY, "--min", "0.3", "--top", "2"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["1", "0.8"]
    assert main([str(pictures), *ANY, "--min", "1.5"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "no picture reaches 1.5; the best has 1." in err


def test_the_cpu_is_right_for_rewards_without_a_choice(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pictures), *ANY, "--device", "cpu"]) == 0
    assert capsys.readouterr().out == f"{pictures / '255.png'}\n"


def test_json_lines_for_programs(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pictures), *ANY, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["score"] for row in rows] == pytest.approx([1, 0.8, 0.4, 0.2, 0])
    assert set(rows[0]) == {"rank", *COLUMNS}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_second_run_scores_only_what_is_new(ending: str, pictures: Path, tmp_path: Path, counted) -> None:  # noqa: ANN001
    out = tmp_path / f"scores.{ending}"
    run = [str(pictures), "--prompt", 'a "red", circle\nand a heart', *COUNTS, "--out", str(out)]
    assert main(run) == 0
    first = out.read_bytes()
    assert counted() == [5]
    assert main(run) == 0
    assert out.read_bytes() == first
    assert counted() == [5]
    grey(pictures / "new.png", 7)
    grey(pictures / "51.png", 52)  # same path, other content
    assert main([*run, "--batch-size", "1"]) == 0
    assert counted() == [5, 1, 1]
    assert out.read_bytes().startswith(first)
    assert main([*run, "--prompt", "another"]) == 0
    assert main([*run, *BRIGHT]) == 0
    assert counted() == [5, 1, 1, 6]
    rows = records(out)
    assert len(rows) == 5 + 2 + 6 + 6
    assert {row["prompt"] for row in rows} == {'a "red", circle\nand a heart', "another"}
    scores = {Path(row["image"]).stem: float(row["score"]) for row in rows[:5]}
    assert scores == pytest.approx({"0": 0, "51": 0.2, "102": 0.4, "204": 0.8, "255": 1})


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("cut", range(1, 140, 9))
def test_a_half_written_row_is_cut_off_and_scored_again(ending: str, cut: int, tmp_path: Path) -> None:
    out = tmp_path / f"scores.{ending}"
    rows = [Row(f"{k}.png", f'line\n"{k}", end', "r", "", "0" * 64, k / 3) for k in range(3)]
    with Table(out, Row) as table:
        for row in rows:
            table.add(row)
    whole = out.read_bytes()
    out.write_bytes(whole[:-cut])
    with Table(out, Row) as table:
        assert list(table.rows.values()) == rows[: len(table.rows)]
        assert 1 <= len(table.rows) < 3
        for row in rows:
            table.add(row)
    assert out.read_bytes() == whole


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, counted, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN001
    for k in range(40):
        grey(tmp_path / "pictures" / f"{k:02d}.png", k)
    out = tmp_path / "scores.csv"
    run = [str(tmp_path / "pictures"), "--prompt", "p", *COUNTS, "--batch-size", "2", "--out", str(out)]
    process = started(run, SLOWLY="0.2")
    wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") > 6)
    process.kill()
    process.communicate(timeout=60)
    kept = out.read_bytes()
    before = len(records(out))
    assert 6 <= before < 40
    calls = len(counted())
    assert main(run) == 0
    assert out.read_bytes().startswith(kept)
    rows = records(out)
    assert sorted(Path(row["image"]).name for row in rows) == [f"{k:02d}.png" for k in range(40)]
    assert sum(counted()[calls:]) == 40 - before


def test_an_interrupt_keeps_what_is_written(tmp_path: Path, counted) -> None:  # noqa: ANN001
    for k in range(40):
        grey(tmp_path / "pictures" / f"{k:02d}.png", k)
    out = tmp_path / "scores.jsonl"
    process = started(
        [str(tmp_path / "pictures"), "--prompt", "p", *COUNTS, "--batch-size", "2", "--out", str(out)], SLOWLY="0.2"
    )
    wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") > 6)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert re.search(r"interrupted; what is scored is kept with .*scores\.jsonl: the same command goes on", stderr)
    assert re.search(r"\d+/40 .*picture/s", stderr)  # rate
    rows = records(out)
    assert 6 <= len(rows) < 40
    assert stdout.strip() == max(rows, key=lambda row: row["score"])["image"]


def started(arguments: list[str], **environment: str) -> "subprocess.Popen[str]":
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from bon_search.score_cli import main; sys.exit(main())"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=Path(__file__).parents[1],
    )


def wait_for(condition) -> None:  # noqa: ANN001
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "empty.png").write_bytes(b"")
    (pictures / "text.jpg").write_text("no picture")
    (pictures / "cut.png").write_bytes(noise_png()[:-200])
    (pictures / "link.png").symlink_to("nowhere.png")
    os.mkfifo(pictures / "pipe.png")
    (pictures / "bomb.png").write_bytes(png(30_000, 8, 0, b"\0" * 100))
    (pictures / "notes.md").write_text("not even looked at")
    assert main([str(pictures), *ANY]) == 0
    out, err = capsys.readouterr()
    assert out == f"{pictures / '255.png'}\n"
    assert "6 of 11 pictures have no score" in err
    for sentence in (
        r"empty\.png is empty \(0 bytes\);",
        r"text\.jpg is not a picture, or damaged \(cannot identify image file\);",
        r"cut\.png is not a picture, or damaged \(.*truncated.*\);",
        r"link\.png cannot be read \(no such file or directory\);",
        r"pipe\.png is no file;",
        r"bomb\.png has more than \d+ pixels, a decompression bomb;",
    ):
        assert re.search(sentence, err), err
    assert "notes.md" not in err
    assert "Traceback" not in err


def noise_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_that_the_reward_refuses_is_named_and_its_batch_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = [
        ("a.png", "a red circle"),
        ("b.png", "a red dragon"),
        ("c.png", "no red circle at all"),
        ("d.png", "a red circle"),
    ]
    for name, _ in listed:
        grey(tmp_path / name, 128, (64, 64))
    grey(tmp_path / "wide.png", 128, (64, 32))
    lines = [{"image": name, "prompt": prompt} for name, prompt in [*listed, ("wide.png", "a red circle")]]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert main([str(tmp_path / "list.jsonl"), "--reward", "shapes", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [Path(json.loads(line)["image"]).name for line in out.splitlines()] == ["a.png", "d.png"]
    assert re.search(r"b\.png cannot be scored: .*'dragon'", err)
    assert re.search(r"c\.png cannot be scored", err)
    assert re.search(r"wide\.png cannot be scored: .*square", err)


def test_the_shapes_verifier_ranks_the_right_picture_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import ImageDraw

    for color in ("red", "blue"):
        image = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(image).ellipse((16, 16, 48, 48), fill=color)
        image.save(tmp_path / f"{color}.png")
    assert main([str(tmp_path), "--prompt", "a red circle", "--reward", "shapes", "--min", "1"]) == 0
    assert capsys.readouterr().out.split("\t")[1] == f"{tmp_path / 'red.png'}\n"


def test_where_prompts_come_from(tmp_path: Path) -> None:
    inside, both, other = PngInfo(), PngInfo(), PngInfo()
    inside.add_text("parameters", "a cat,\non a mat\nNegative prompt: dog\nSteps: 20, Sampler: Euler, Seed: 1")
    both.add_text("parameters", "cut\nSteps: 2")
    other.add_text("parameters", "a bird\nSteps: 2")
    other.add_text("bon_search", '{"recipe": {"prompt": null}}')
    both.add_text("bon_search", json.dumps({"recipe": {"prompt": "a whole prompt"}}))
    grey(tmp_path / "inside.png", 1, pnginfo=inside)
    grey(tmp_path / "both.png", 2, pnginfo=both)
    grey(tmp_path / "other.png", 2, pnginfo=other)
    grey(tmp_path / "beside.jpg", 3)
    grey(tmp_path / "deep" / "over.png", 4, pnginfo=inside)
    grey(tmp_path / "none.png", 5)
    grey(tmp_path / "blank.png", 6)
    (tmp_path / "beside.txt").write_text("a dog\n", encoding="utf-8-sig")
    (tmp_path / "deep" / "over.txt").write_text("a horse")
    (tmp_path / "blank.txt").write_text(" \n")
    outcomes = list(score_pictures(jobs_of(tmp_path), brightness()))
    assert {Path(row.image).name: row.prompt for row in outcomes if isinstance(row, Row)} == {
        "inside.png": "a cat,\non a mat",
        "both.png": "a whole prompt",
        "other.png": "a bird",
        "beside.jpg": "a dog",
        "over.png": "a horse",
    }
    failures = {Path(f.image).name: f.reason for f in outcomes if isinstance(f, Failure)}
    assert "has no prompt; give --prompt, write one into none.txt" in failures.pop("none.png")
    assert "empty prompt" in failures.pop("blank.png")
    assert failures == {}
    assert {row.prompt for row in score_pictures(jobs_of(tmp_path, "one"), brightness())} == {"one"}


def brightness():  # noqa: ANN201
    from rewards import load_reward

    return load_reward("pixels:brightness")


def test_a_picture_made_by_generate_best_brings_its_prompt(tmp_path: Path) -> None:
    from bon_search.cli import main as generate

    prompt = "a red circle left of a blue square"
    assert generate(["--n", "1", "--steps", "2", "--reward", "shapes", "--out", str(tmp_path / "run"), prompt]) == 0
    assert prompt_inside((tmp_path / "run" / "best.png").read_bytes()) == prompt


def test_a_csv_list_with_its_own_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey(tmp_path / "in" / "a.png", 10)
    grey(tmp_path / "in" / "b, c.png", 20)
    (tmp_path / "in" / "list.csv").write_text(
        'id,image,prompt\n1,a.png,first\n2,"b, c.png",\n3,a.png,first\n4,gone.png,x\n'
    )
    out = tmp_path / "new" / "scores.csv"
    assert main([str(tmp_path / "in" / "list.csv"), *BRIGHT, "--prompt", "for the rest", "--out", str(out)]) == 0
    assert [(Path(row["image"]).name, row["prompt"]) for row in records(out)] == [
        ("a.png", "first"),
        ("b, c.png", "for the rest"),
    ]
    err = capsys.readouterr().err
    assert re.search(r"gone\.png cannot be read \(no such file", err)
    assert "2 prompts" in err
    # a table that was written is a list that can be read
    assert main([str(out), "--reward", "pixels:sharpness", "--out", str(out)]) == 0
    assert [row["reward"] for row in records(out)] == ["pixels:brightness"] * 2 + ["pixels:sharpness"] * 2


def test_pictures_of_one_size_share_batches(tmp_path: Path, counted) -> None:  # noqa: ANN001
    for k in range(12):
        grey(tmp_path / "p" / f"{k:02d}.png", k, (8 + k % 3, 8))
    assert main([str(tmp_path / "p"), "--prompt", "p", *COUNTS, "--batch-size", "3"]) == 0
    assert sorted(counted()) == [1, 1, 1, 3, 3, 3]


def test_pictures_of_rare_sizes_do_not_wait_for_ever(tmp_path: Path, counted) -> None:  # noqa: ANN001
    jobs = [Job(grey(tmp_path / f"{k:02d}.png", k, (8 + k, 8)), "p") for k in range(20)]
    outcomes = score_pictures(jobs, Counts(), batch_size=2)
    next(outcomes)
    assert counted() == [1]  # after 16 pictures, not after 20
    assert len(list(outcomes)) == 19


class Small:
    """Has memory for two pictures."""

    name = "small"
    absolute = True

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, images, prompts):  # noqa: ANN001, ANN204
        self.calls.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return torch.tensor([float(prompt) for prompt in prompts])


def test_a_batch_that_does_not_fit_into_memory_is_halved(tmp_path: Path) -> None:
    reward = Small()
    jobs = [Job(grey(tmp_path / f"{k}.png", k), str(k)) for k in range(7)]
    rows = list(score_pictures(jobs, reward))
    assert [(Path(row.image).name, row.score) for row in rows] == [(f"{k}.png", k) for k in range(7)]
    assert reward.calls[0] == 7
    assert sorted(call for call in reward.calls if call < 3) == [1, 2, 2, 2]
    reward.absolute = False
    with pytest.raises(SearchError, match="only compares"):
        list(score_pictures(jobs, reward))


def test_a_score_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    jobs = [Job(grey(tmp_path / f"{k}.png", k), prompt) for k, prompt in enumerate(["1", "nan", "3"])]
    outcomes = list(score_pictures(jobs, Small()))
    assert [o.score if isinstance(o, Row) else "nan" in o.reason for o in outcomes] == [1, True, 3]


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_every_kind_of_picture_has_defined_pixels() -> None:
    def pixel(content: bytes) -> tuple[int, ...]:
        image = rgb(content)
        assert image.mode == "RGB"
        return image.getpixel((0, 0))

    size = (4, 4)
    sixteen = Image.fromarray(np.full(size, 128 * 257, np.uint16))
    assert pixel(saved(sixteen)) == (128, 128, 128)
    assert pixel(saved(sixteen, "TIFF")) == (128, 128, 128)
    assert pixel(png(1, 16, 2, b"\0" + bytes([10, 10, 200, 200, 30, 30]))) == (10, 200, 30)
    assert pixel(saved(Image.fromarray(np.full(size, 0.4, np.float32)), "TIFF")) == (102, 102, 102)
    assert pixel(saved(Image.new("L", size, 77))) == (77, 77, 77)
    assert pixel(saved(Image.new("1", size, 1))) == (255, 255, 255)
    assert pixel(saved(Image.new("RGBA", size, (255, 0, 0, 0)))) == (255, 255, 255)
    assert pixel(saved(Image.new("RGBA", size, (0, 0, 0, 51)))) == (204, 204, 204)
    assert pixel(saved(Image.new("LA", size, (0, 51)))) == (204, 204, 204)
    palette = Image.new("RGB", size, (10, 200, 30)).quantize(4)
    assert pixel(saved(palette)) == (10, 200, 30)
    assert pixel(saved(palette, transparency=palette.getpixel((0, 0)))) == (255, 255, 255)
    assert pixel(saved(Image.new("CMYK", size, (0, 0, 0, 0)), "TIFF")) == (255, 255, 255)
    frames = [Image.new("RGB", size, color) for color in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        film = saved(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert pixel(film) == (255, 0, 0)


def test_a_photograph_is_turned_as_viewers_turn_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90°
    assert rgb(saved(Image.new("RGB", (8, 4)), "JPEG", exif=exif)).size == (4, 8)


def test_floating_point_pictures_out_of_range_are_refused() -> None:
    for value in (2.0, float("nan")):
        with pytest.raises(SearchError, match="expected 0 to 1"):
            rgb(saved(Image.fromarray(np.full((4, 4), value, np.float32)), "TIFF"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], r"FOLDER_OR_FILE.*--help"),
        (["p", "--inspect", "nowhere"], r"scores nothing, and pictures to score \(p\); give one of the two"),
        (["--inspect", "nowhere"], r"There is no folder 'nowhere'"),
        (["--inspect", "p"], r"no config\.json in p"),
        (["nowhere"], r"nowhere cannot be read \(no such file or directory\); give a folder"),
        (["bare"], r"bare holds no picture"),
        (["notes.txt"], r"notes\.txt is neither"),
        (["binary.csv"], r"binary\.csv is not a UTF-8 text"),
        (["bad.csv"], r"bad\.csv has no column image"),
        (["quote.csv"], r"quote\.csv, line \d, is not CSV"),
        (["none.csv"], r"none\.csv lists no picture"),
        (["bad.jsonl"], r"bad\.jsonl, line 2, is not JSON"),
        (["list.jsonl"], r"list\.jsonl, line 1, is no object"),
        (["number.jsonl"], r"number\.jsonl, entry 1, has a prompt that is no text \(7\)"),
        (["p", "--prompt", " "], r"prompt is empty"),
        (["p"], r"none of the 2 pictures|has no prompt; give --prompt"),
        (["p", "--prompt", "x", "--out", "scores.xlsx"], r"scores\.xlsx ends neither in \.csv nor in \.jsonl"),
        (["p", "--prompt", "x", "--out", "/proc/nowhere/s.csv"], r"cannot be written.*--out"),
        (["p", "--prompt", "x", "--out", "bad.csv"], r"bad\.csv is not a table of score-images.*stays as it is"),
        (["p", "--prompt", "x", "--out", "line.csv"], r"line\.csv is not a table of score-images"),
        (["p", "--prompt", "x", "--out", "bad.jsonl"], r"bad\.jsonl is not a table of score-images"),
        (["p", "--prompt", "x", "--reward", "shape"], r"did you mean 'shapes'"),
        (["p", "--prompt", "x", "--reward", "llava-reward", "--device", "quantum"], r"quantum"),
        (["p", "--prompt", "x", "--reward", "llava-reward", "--checkpoint", "nowhere"], r"nowhere"),
        (["p", "--prompt", "x", "--device", "cuda"], r"no option 'device'"),
        (["p", "--prompt", "x", "--reward", "shape", "--device", "cpu"], r"did you mean 'shapes'"),
        (["p", "--prompt", "x", "--checkpoint", "nowhere"], r"no option 'checkpoint'"),
        (["p", "--prompt", "x", "--top", "0"], r"--top.*'0'.*at least 1"),
        (["p", "--prompt", "x", "--min", "nan"], r"'nan' is not a finite number"),
        (["p", "--prompt", "x", "--batch-size", "-1"], r"--batch-size.*'-1'"),
        (["broken", "--prompt", "x"], r"none of the 2 pictures has a score; each is empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_sentence_with_the_cure(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "notes.txt": b"hello",
        "binary.csv": b"\xff\xfe\x00",
        "bad.csv": b"file;prompt\na.png;x\n",
        "line.csv": b"something else, without an end",
        "quote.csv": b'image,prompt\na.png,"x\n',
        "none.csv": b"image,prompt\n",
        "bad.jsonl": b'{"image": "p/1.png", "prompt": "x"}\n{"image"\n',
        "list.jsonl": b"[1]\n",
        "number.jsonl": b'{"image": "p/1.png", "prompt": 7}\n',
        "broken/1.png": b"",
        "broken/2.png": b"",
    }
    for folder in ("bare", "broken"):
        (tmp_path / folder).mkdir()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    grey(tmp_path / "p" / "1.png", 1)
    try:
        status = main([*([] if "--reward" in arguments else BRIGHT), *arguments])
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert re.search(sentence, err), err
    assert len([line for line in err.split("\n") if line.strip()]) == 1, err
    assert "Traceback" not in err
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


def test_nothing_scored_leaves_no_empty_table(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert main([str(tmp_path), *ANY, "--out", str(tmp_path / "s.csv")]) == 2
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said_and_loses_no_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Table(tmp_path / "s.csv", Row) as table:
        table.add(Row("a.png", "p", "r", "", "0" * 64, 1.0))
        before = (tmp_path / "s.csv").read_bytes()
        table._file.close()
        table._file = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115  the table closes it
        with pytest.raises(SearchError, match=r"cannot be written \(no space left.*1 rows stay"):
            table.add(Row("b.png", "p", "r", "", "0" * 64, 2.0))
    assert (tmp_path / "s.csv").read_bytes() == before


def test_inspect_says_what_a_checkpoint_is_and_needs_no_base_model(capsys: pytest.CaptureFixture[str]) -> None:
    goldens = Path(__file__).parent / "rewards/llava/goldens"
    assert main(["--inspect", str(goldens / "phi3v/gpm4_ca")]) == 0
    out, err = capsys.readouterr()
    facts = dict(re.split(r":\s+", line, maxsplit=1) for line in out.splitlines())
    assert err == ""
    assert facts["backbone"] == "phi3v"
    assert facts["head"] == "general preference, 4 outputs from 64"
    assert facts["scores"] == "none; ranks the candidates of one prompt"
    assert facts["SkipCA"] == "yes"
    assert main(["--inspect", str(goldens / "llava/bt")]) == 0
    assert re.search(r"(?m)^SkipCA: +no$", capsys.readouterr().out)


def test_the_help_text_needs_no_heavy_library() -> None:
    heavy = {"torch", "PIL", "numpy", "tqdm", "transformers"}
    code = f"import sys, bon_search.score_cli as c; c.parser().format_help(); print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_embedded_reward_prefers_what_was_asked_for_and_says_what_it_never_learnt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey(tmp_path / "a.png", 128, (64, 64))
    assert main([str(tmp_path), "--prompt", "a red dragon"]) == 0
    assert re.search(r"warning: the embedded reward never learnt dragon", capsys.readouterr().err)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_name_that_is_not_utf8_comes_back_as_it_is(
    ending: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder, out = tmp_path / "p", tmp_path / f"s.{ending}"
    grey(folder / "a.png", 100)
    name = os.fsencode(folder) + b"/\xff\xe9.png"
    try:
        os.rename(folder / "a.png", name)  # noqa: PTH104
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    run = [str(folder), *ANY, "--out", str(out)]
    assert main(run) == 0
    assert capfdbinary.readouterr().out == name + b"\n"
    first = out.read_bytes()
    assert name in first if ending == "csv" else json.loads(first)["image"] == os.fsdecode(name)
    assert main([*run, "--json"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["image"] == os.fsdecode(name)
    assert out.read_bytes() == first


def test_all_rewards_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    from rewards import reward_names

    assert main(["--list-rewards"]) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith(" ")]
    assert sorted(listed) == sorted(reward_names())


def test_a_function_beside_the_user_is_a_reward(pictures: Path) -> None:
    """The folder that a command is run in is not where the command lies."""
    module = "def lightest(pictures, texts):\n    return pictures.mean(dim=(1, 2, 3))\n"
    (pictures / "beside.py").write_text(module)
    command = [sys.executable, "-P", "-c", "import sys; from bon_search.score_cli import main; sys.exit(main())"]
    where = {"cwd": pictures, "env": os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}}
    run = [*command, ".", "--prompt", "x", "--reward", "beside:lightest"]
    done = subprocess.run(run, check=True, capture_output=True, text=True, timeout=120, **where)
    assert done.stdout == "255.png\n"
