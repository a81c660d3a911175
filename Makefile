# Each target makes what it needs; all can be run again at any time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest

.PHONY: help install quickstart test test-all test-oldest fuzz check docs bench

help:
	@echo "make quickstart  install into $(VENV), train the quickstart, name the report to open"
	@echo "make test        install, then run the tests"
	@echo "make test-all    the same with the slow ones: every variant of every kernel compiled"
	@echo "make fuzz        install, then feed 100,000 random inputs to everything that reads files and texts: under an hour"
	@echo "make test-oldest install the oldest versions that are promised into $(OLDEST), then run a part of the tests with them"
	@echo "make check       install, then lint, check formatting and types"
	@echo "make docs        install, then build the documentation into site/"
	@echo "make bench       install, then run the benchmarks"

# A stamp inside the environment: installing again only when the pins or the metadata of one of the two packages changed.
install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml kernels/pyproject.toml constraints.txt
	@echo "Installing into $(VENV) with the versions of constraints.txt (a few minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable kernels --editable '.[test,report,docs]'
	@touch $@

quickstart: install
	@echo "Training the quickstart (about 5 minutes on 2 CPU cores); a second call continues or shows what is there ..."
	@$(BIN)/alignx-fast train quickstart --resume

test: install
	@echo "Running the tests ..."
	@$(BIN)/python -m pytest

test-all: install
	@echo "Running all tests ..."
	@$(BIN)/python -m pytest -m ""

fuzz: install
	@FUZZ_INPUTS=100000 $(BIN)/python -m pytest tests/fuzz

# Settings, models, training and a whole run; old versions warn of more.
test-oldest: $(OLDEST)/.installed
	@echo "Running a part of the tests with the versions of constraints-oldest.txt ..."
	@$(OLDEST)/bin/python -m pytest -W default tests/test_config.py tests/test_reading.py tests/training/test_step.py tests/models/test_packed.py \
	  tests/training/test_adapters.py tests/test_cli.py::test_a_run_leaves_what_the_readme_says

$(OLDEST)/.installed: pyproject.toml kernels/pyproject.toml constraints-oldest.txt
	@echo "Installing into $(OLDEST) with the versions of constraints-oldest.txt ..."
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt torch
	@$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable kernels --editable '.[test]'
	@touch $@

check: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: install
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "Built: site/index.html (for the search: python3 -m http.server -d site)"

bench: install
	@$(BIN)/python -m pytest benchmarks
