"""What the README shows is what there is: its Python runs, its help text is the program's."""

import re
from pathlib import Path

import pytest

from bon_search.cli import parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.M | re.S)


def test_the_help_text_is_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    assert parser().format_help() in blocks("text")


def test_the_embedded_examples_run_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("PIL.Image.Image.show", lambda image: None)  # no window
    scope: dict[str, object] = {}
    ran = [block for block in blocks("python") if "embedded" in block]
    for block in ran:
        exec(compile(block, "README.md", "exec"), scope)
    assert ran
    assert (tmp_path / "runs" / "first" / "best.png").is_file()


def test_the_other_examples_are_at_least_python() -> None:
    for block in blocks("python"):
        compile(block, "README.md", "exec")


def test_files_that_the_readme_names_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_commands_that_the_readme_shows_can_be_parsed() -> None:
    import shlex

    from bon_search import calibrate_cli, compare_cli, evaluate_cli, score_parser, train_cli

    parsers = {"generate-best": parser(), "score-images": score_parser.parser()}
    parsers |= {"compare-searches": compare_cli.parser(), "calibrate-search": calibrate_cli.parser()}
    parsers |= {"train-reward": train_cli.parser(), "evaluate-reward": evaluate_cli.parser()}
    lines = [shlex.split(line[2:]) for block in blocks("console") for line in block.splitlines() if line[:2] == "$ "]
    seen = {words[0] for words in lines}
    for name, *arguments in lines:
        if name in parsers:
            parsers[name].parse_args(arguments)
    assert seen >= set(parsers)
