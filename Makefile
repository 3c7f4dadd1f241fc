# `make run` and `make test` need only Python 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Tests run in as many processes as cores and memory allow; `make test WORKERS=0` runs them in one.
WORKERS ?= auto

.PHONY: run test test-long lint imports types

run: $(INSTALLED)
	$(BIN)/fl-ppae run pathmnist_iid --hospitals 5

# One thread for each process: small networks gain nothing from more, and would take each other's cores.
test test-long: export OMP_NUM_THREADS = 1

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --durations=10

test-long: $(INSTALLED)
	$(BIN)/python -m pytest -m long

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

imports: $(INSTALLED)
	$(BIN)/lint-imports --no-cache

types: $(INSTALLED)
	$(BIN)/python -m mypy

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fl-ppae needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv: a few minutes and about 6 GB the first time"
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@
