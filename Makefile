# `make demo` and `make test` need Python 3.11 or newer, and make; the rest they install into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test lint types contracts unit test-nightly bench clean check-python

help:  ## show this list
	@echo "usage: make TARGET [PYTHON=python3.12]"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 16

demo: $(VENV)/demo.stamp  ## sample the shipped models; train, export and verify a small one
	$(BIN)/python examples/demo.py

test: lint types contracts unit  ## everything that CI checks

lint: $(VENV)/dev.stamp  ## style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/dev.stamp  ## static types
	$(BIN)/mypy

contracts: $(VENV)/dev.stamp  ## who may import whom
	$(BIN)/lint-imports

# One thread for each worker: the workers share the cores, and sums keep their order.
unit: export OMP_NUM_THREADS = 1
unit: $(VENV)/dev.stamp  ## the tests
	$(BIN)/pytest -n auto --dist loadfile

test-nightly: export OMP_NUM_THREADS = 1
test-nightly: $(VENV)/dev.stamp  ## the reliability bars in full, most of an hour; writes benchmarks/results
	$(BIN)/pytest -n auto --nightly --bars benchmarks/results/reliability.md tests/reliability

bench: $(VENV)/dev.stamp  ## run each file in benchmarks/ that has no leading underscore
	@failed=0; for file in $(filter-out benchmarks/_%, $(wildcard benchmarks/*.py)); do \
		echo "== $$file"; $(BIN)/python "$$file" || failed=1; done; exit $$failed

clean:  ## remove the environment, caches and builds
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written when its installation has finished, so an interrupted one starts over.
$(VENV)/demo.stamp: pyproject.toml constraints.txt | check-python
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[cpu,train,export]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	$(INSTALL) -e '.[dev]'
	@# Without what it asks for: torchvision, of which its networks have no use, wants CUDA's PyTorch.
	$(INSTALL) --no-deps denoising-diffusion-pytorch
	@touch $@

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "difftool needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)"; \
		echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; } >&2
