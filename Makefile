# Everything runs in .venv, which the first call creates; a changed setup.cfg refreshes it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test docs coverage mutants faults clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Processes that test side by side. The tests of one file stay together, for what they share is trained once.
JOBS ?= 2

# pip tells what it is doing on one line that rewrites itself, or line by line where the output is a file.
ifeq ($(shell [ -t 1 ] && echo terminal),terminal)
PROGRESS := awk '{ printf "\r\033[K  %.100s", $$0; fflush() } END { print "" }'
else
PROGRESS := awk '/^ *Downloading|^Installing|^Successfully/ { print "  " substr($$0, 1, 100); fflush() }'
endif
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --editable

help:
	@echo "make demo   phantom data, planning, training, prediction with every subset: about 6 minutes on 2 idle cores"
	@echo "            (make demo ARGS='-o DIR' passes arguments to 'd2net demo')"
	@echo "make test   linters and all tests: about 10 minutes on 2 idle cores"
	@echo "make docs   these pages as a site, in build/site; a link that leads nowhere is an error: half a minute"
	@echo "make coverage  which lines the quick tests run, and whether that is enough: 47 minutes on busy cores, less on idle ones"
	@echo "make mutants  change the code in one place after the other and see whether a test fails: a few hours on one core,"
	@echo "            goes on where it was stopped (make mutants ARGS='method scores' tries these rooms: docs/mutants.md)"
	@echo "make faults  kill, interrupt, fill the disk of each command and call it again: hours on 2 cores, goes on where it was"
	@echo "            stopped (make faults ARGS='-n 5 --commands convert predict' chooses: docs/reliability.md)"
	@echo "make clean  remove .venv and what the tools left behind; keeps d2net_demo/"

demo: $(VENV)/.installed-demo
	$(BIN)/d2net demo $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	PYTHONPATH=. $(BIN)/lint-imports
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --durations=15 -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

coverage: $(VENV)/.installed-test $(VENV)/.installed-coverage
	$(BIN)/python -m pytest tests/unit -m "not slow and not gpu" --cov $(ARGS)

mutants: $(VENV)/.installed-test $(VENV)/.installed-mutants
	$(BIN)/python tests/mutants.py $(ARGS)

faults: $(VENV)/.installed-test
	PYTHONPATH=. $(BIN)/python -m tests.faults.campaign $(ARGS)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing nnU-Net, PyTorch and this package into $(VENV): about 6 GB, a few minutes, once"
	@$(INSTALL) ".[$*]" | $(PROGRESS)
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
