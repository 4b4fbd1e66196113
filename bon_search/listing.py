"""What can be asked of the table of searches: one line for each, and BibTeX for the papers behind one."""

from __future__ import annotations

from inspect import Parameter

from bon_search.references import PAPERS
from bon_search.table import load_search, search_names

COMPOSED = """A then B, such as "halving then zero_order"
    Search with A, then from its survivors with B; any of the above, and more than two.
    -o split=0.5, the share of the budget that A gets, and the options of both: as B.option where both have it"""


def listing(search: str | None = None) -> str:
    """Name, what it does, what it costs, papers, options with their defaults; of one search, or of all.

    Raises:
        SearchError: No such search.
    """
    if search is not None:
        return _described(search)
    return "\n\n".join([*(_described(name) for name in search_names()), COMPOSED])


def bibtex(search: str) -> str:
    """The papers of a search as BibTeX.

    Raises:
        SearchError: No such search.
    """
    return "\n\n".join(_entry(reference) for reference in load_search(search).references)


def _described(name: str) -> str:
    entry = load_search(name)
    options = "  ".join(f"{option}={_default(parameter)}" for option, parameter in entry.options.items())
    lines = [entry.summary, f"cost: {entry.formula}", f"papers: {', '.join(entry.references)}"]
    return "\n    ".join([entry.name, *lines, *([f"-o {options}"] if options else [])])


def _default(parameter: Parameter) -> object:
    return "(needed)" if parameter.default is Parameter.empty else parameter.default


def _entry(reference: str) -> str:
    paper = PAPERS.get(reference)
    if paper is None:
        return f"% {reference}"
    fields = {"title": f"{{{paper.title}}}", "author": paper.authors, "year": str(paper.year), "note": reference}
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{paper.key},\n{body}\n}}"
