# Every target works from a fresh clone: it makes its own virtual environment first, if there is
# none, and installs what constraints.txt pins.
#
#   PYTHON=python3.12    the interpreter to build the environment with (3.10 to 3.13)
#   VENV=.venv           where the environment goes
#   TORCH_INDEX=URL      a further package index to find torch in, such as that of CPU builds
#                        (README.md)

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL := $(BIN)/python -m pip install --constraint constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help install demo test check format bench table4 plots experiments gpu clean distclean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Make the environment and install everything into it

# setuptools first: with it the library is built inside the environment, by the pinned version.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info[:2] <= (3, 13); ok or sys.exit( \
	    "Python 3.10 to 3.13 is needed, $(PYTHON) is %d.%d: make PYTHON=..." % sys.version_info[:2])'
	@echo "==> making the environment $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "==> installing the library and its tools; torch and triton take a few minutes"
	@$(PIP_INSTALL) setuptools
	@$(PIP_INSTALL) --no-build-isolation --editable ".[dev]"
	@touch $@

demo: $(STAMP) ## The first layer on a photograph, then a small network trained: pictures in out/
	@$(BIN)/python -m examples.demo

test: $(STAMP) ## All tests that need no GPU
	@PYTHON=$(BIN)/python tests/run_all.sh

check: $(STAMP) ## Lint, formatting and types
	@echo "==> ruff check" && $(BIN)/ruff check
	@echo "==> ruff format --check" && $(BIN)/ruff format --check
	@echo "==> mypy" && $(BIN)/mypy

format: $(STAMP) ## Let ruff format the code and sort the imports
	@$(BIN)/ruff check --fix --select I && $(BIN)/ruff format

bench: $(STAMP) ## The benchmarks of this machine: the GPU if there is one, else the CPU
	@$(BIN)/python -m pytest bench --benchmark-only

table4: $(STAMP) ## The paper's Table 4 at its own sizes: minutes, and 10 GB, without a GPU
	@$(BIN)/python -m pytest bench/test_table4.py --benchmark-only --paper-sizes

plots: $(STAMP) ## Plots and tables of the documentation, from bench/results alone
	@$(BIN)/python -m bench.plots && $(BIN)/python -m bench.report

experiments: $(STAMP) ## The paper's claims at a small scale, what is missing: hours; needs PIXELNET_DATA
	@$(BIN)/python -m examples.experiments run && $(BIN)/python -m examples.experiments report

gpu: $(STAMP) ## The one command for a machine with a GPU: tests, gate, benchmarks
	@$(BIN)/python -m pixelnet_triton.selfcheck

clean: ## Remove what builds, tests and the demo leave behind
	rm -rf build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## ... and the environment
	rm -rf $(VENV)
