"""The notebooks are in step with their paired scripts, and run."""

from pathlib import Path

import pytest

from bon_search.table import BUILT_IN

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == [path.stem for path in sorted(EXAMPLES.glob("[0-9]*.py"))] != []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_what_its_script_says(path: Path) -> None:
    import jupytext

    script, notebook = jupytext.read(path.with_suffix(".py")), jupytext.read(path)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ]
    assert not any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for each other, where other tests run beside it
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


def test_the_walk_through_all_searches_leaves_none_out() -> None:
    text = (EXAMPLES / "02_searches.py").read_text(encoding="utf-8")
    assert [name for name in BUILT_IN if f'show("{name}"' not in text] == []
