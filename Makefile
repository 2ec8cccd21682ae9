# Each target sets up what it needs by itself. VENV names another virtual environment, PYTHON another Python.
VENV ?= .venv
PYTHON ?= python3
SPEC ?= benchmarks/quick.toml
ARGS ?=
TESTS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.lungseg-ready
TEST_READY := $(VENV)/.lungseg-test-ready

.DEFAULT_GOAL := help
.PHONY: help setup benchmark test lint clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  SPEC=FILE    the benchmark to run            (now $(SPEC))"
	@echo "  ARGS='...'   more words for 'lungseg benchmark', such as --fresh"
	@echo "  TESTS=PATH   the tests to run, such as tests/test_cli.py (all if not given)"
	@echo "  VENV=DIR     the virtual environment         (now $(VENV))"
	@echo "  LUNGSEG_DATA, LUNGSEG_WEIGHTS: folders of real X-rays and of ImageNet weights (README.md)"

setup: $(READY) ## Make the virtual environment and install lungseg in it

benchmark: $(READY) ## Run or resume a benchmark: tables and pictures in results/
	$(BIN)/lungseg benchmark $(SPEC) $(ARGS)

# Threads wait without spinning: those of two processes that spin on the same cores hold one another up.
test: $(TEST_READY) ## Run the tests, two at a time
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(TESTS)

lint: $(TEST_READY) ## Check style and formatting with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean: ## Remove the virtual environment and caches (results stay)
	test ! -e $(VENV)/pyvenv.cfg || rm -rf $(VENV)
	rm -rf .pytest_cache .ruff_cache build *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("lungseg needs Python 3.11 or later, $(PYTHON) is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test ! -e $(VENV) || test -e $(VENV)/pyvenv.cfg || { echo "$(VENV) is there and no virtual environment: choose another VENV="; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -f $(VENV)/bin/python; exit 1; }  # a half-made one must not look made

# torch and torchvision have to be a pair from one index; asking for both in one go lets pip match them.
$(READY): pyproject.toml setup.py | $(BIN)/python
	@echo "Installing PyTorch and what else is needed in $(VENV): several GB, a few minutes ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(TEST_READY): pyproject.toml setup.py | $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@
