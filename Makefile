# One entrance for everything; CI calls the same targets. PYTHON and VENV can be set from outside.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PROMPT ?= a red circle left of a blue square
export HF_HUB_OFFLINE = 1
PUBLIC = bon_search bon_search.searches.best_of_n bon_search.compare rewards rewards.base rewards.testing rewards.shapes pipelines pipelines.testing

$(VENV)/.installed: pyproject.toml  # torch first: on its own it is the small CPU build where one is at hand
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -e ".[dev]"
	touch $@

.PHONY: demo test test-all check fix notebooks docs
demo: $(VENV)/.installed  ## sixteen candidates of one prompt, the best chosen by the embedded LLaVA-Reward
	$(BIN)/generate-best --n 16 "$(PROMPT)"
test: $(VENV)/.installed
	$(BIN)/pytest -n auto --dist loadfile -m "not slow and not gpu"
test-all: $(VENV)/.installed
	$(BIN)/pytest -m "not gpu" --cov --cov-report=term
check: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy && $(BIN)/lint-imports
fix: $(VENV)/.installed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
notebooks: $(VENV)/.installed
	$(BIN)/pytest tests/test_notebooks.py
docs: $(VENV)/.installed
	$(BIN)/pdoc -o site $(PUBLIC)
