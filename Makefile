# Every target makes the environment that it needs; nothing has to be installed first but Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := bench methods protocols tests
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help run test check bench gpu leaderboard clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 14

run: $(VENV)/.run  ## set up, then pretrain RotNet on the embedded scenes and evaluate it
	$(BIN)/bench run --method rotnet --protocol linear

test: $(VENV)/.dev  ## set up, then run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not gpu" $(ARGS)

check: $(VENV)/.dev  ## lint, types, the import contract, and an up-to-date leaderboard
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bench leaderboard --check

bench: $(VENV)/.dev  ## time views and probes against their peers (pytest-benchmark)
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-group-by=group $(ARGS)

gpu: $(VENV)/.dev  ## on a machine with a GPU: test the kernels, and profile losses, steps and views
	scripts/gpu.sh $(PIECES)

leaderboard: $(VENV)/.run  ## compute leaderboard.md from the records
	$(BIN)/bench leaderboard

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' \
		|| { echo "Python 3.11.4 or newer is needed; try: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing (about two minutes) ..."
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing with the test tools (about two minutes) ..."
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.run

clean:  ## remove the environment
	rm -rf $(VENV)
