# `make demo` and `make test` need Python 3.11 or newer, and make; the rest they install into .venv,
# each package with the hash that requirements/ has of it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
RELEASE := .venv-release
SITE := build/site
# A network that fails for a moment fails no installation.
AGAIN := again() { "$$@" || { sleep 5; "$$@"; } || { sleep 30; "$$@"; }; }; again
PIP := -m pip install --disable-pip-version-check --retries 10 --timeout 60
LOCKED := $(PIP) --require-hashes --no-deps --no-build-isolation
LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --upgrade --universal \
	--python-version 3.11 --generate-hashes --no-annotate --no-emit-package torch \
	-c requirements/torch.txt
# What the oldest versions must bear: bundles, samples, exports, checks, int8 and pictures.
CHOSEN := tests/test_bundle.py tests/test_files.py tests/runtime tests/plot tests/cli/test_sample.py \
	tests/cli/test_program.py tests/cli/test_quantize.py tests/cli/test_verify.py \
	tests/export/test_bundle.py tests/export/test_step.py tests/reliability/test_limits.py \
	tests/reliability/test_bundles_cve.py tests/reliability/test_bundles_digests.py

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test lint types contracts unit test-oldest test-nightly docs dist bench lock clean check-python

help:  ## show this list
	@echo "usage: make TARGET [PYTHON=python3.12]"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 16

demo: $(VENV)/demo.stamp  ## sample the shipped models; train, export and verify a small one
	$(BIN)/python examples/demo.py

test: lint types contracts unit  ## style, types, contracts and all tests; CI also runs test-oldest

lint: $(VENV)/dev.stamp  ## style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/dev.stamp  ## static types
	$(BIN)/mypy

contracts: $(VENV)/dev.stamp  ## who may import whom
	$(BIN)/lint-imports

# One thread for each worker: the workers share the cores, and sums keep their order. A worker that
# crashes ends the run: what it had left is not always taken up by the others. Files keep their order:
# those with few tests, which would go last, are often the longest.
unit: export OMP_NUM_THREADS = 1
unit: $(VENV)/dev.stamp  ## the tests
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# CUDA's packages, which one file compiles with, are not in that environment.
test-oldest: export OMP_NUM_THREADS = 1
test-oldest: $(OLDEST)/stamp  ## a part of the tests, on the oldest versions that pyproject.toml allows
	$(OLDEST)/bin/pytest -n auto --dist loadfile -p no:cacheprovider \
		--ignore tests/runtime/cuda/test_compile.py $(CHOSEN)

test-nightly: export OMP_NUM_THREADS = 1
test-nightly: $(VENV)/dev.stamp  ## the reliability criteria in full, more than an hour; writes benchmarks/results
	$(BIN)/pytest -n auto --dist worksteal --nightly --criteria benchmarks/results/reliability.md \
		tests/reliability tests/preflight tests/compile/engine/test_models.py tests/deploy \
		tests/serve/test_replicas.py

docs: $(VENV)/dev.stamp  ## build the site of the documentation, in build/site; a warning fails
	$(BIN)/python -m sphinx --quiet --fail-on-warning --builder html --conf-dir docs . $(SITE)

# The environment is new, and has what the wheel needs for the extra `cpu`, and a server's packages.
dist: $(VENV)/dev.stamp  ## build sdist and wheel, check them, and sample with the wheel installed
	rm -rf dist $(RELEASE)
	$(BIN)/python -m hatchling build
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(PYTHON) -m venv $(RELEASE)
	$(AGAIN) $(RELEASE)/bin/python $(LOCKED) -r requirements/serve-cpu.txt
	$(RELEASE)/bin/python $(PIP) --no-index "$$(echo dist/*.whl)[cpu]"
	cd $(RELEASE) && bin/difftool doctor && bin/difftool sample --sampler ddim --steps 10 -n 4 --out grid.png

bench: $(VENV)/dev.stamp  ## run each script in benchmarks/
	@failed=0; for file in $(wildcard benchmarks/*.py); do \
		echo "== $$file"; $(BIN)/python "$$file" || failed=1; done; exit $$failed

lock: $(VENV)/dev.stamp  ## renew requirements/*.txt: the newest versions, and the oldest allowed ones
	$(LOCK) pyproject.toml requirements/dev.in --extra dev -o requirements/dev.txt
	$(LOCK) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	$(LOCK) pyproject.toml --extra cpu --extra train --extra export -c requirements/dev.txt \
		-o requirements/demo.txt
	$(LOCK) pyproject.toml --extra cpu --extra serve -c requirements/dev.txt \
		-o requirements/serve-cpu.txt
	$(LOCK) pyproject.toml requirements/serve-gpu.in --extra gpu --extra serve -c requirements/dev.txt \
		-o requirements/serve-gpu.txt
	$(LOCK) pyproject.toml --extra cpu --extra openvino --extra export --extra plot --extra test \
		--resolution lowest-direct -o requirements/oldest.txt

clean:  ## remove the environment, caches and builds
	rm -rf $(VENV) $(OLDEST) $(RELEASE) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written when its installation has finished, so an interrupted one starts over.
$(VENV)/demo.stamp: pyproject.toml $(wildcard requirements/*.txt) | check-python
	$(call install,$(VENV),requirements/demo.txt)
	@touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	$(AGAIN) $(BIN)/python $(LOCKED) -r requirements/dev.txt
	$(AGAIN) $(BIN)/python $(LOCKED) --upgrade --target $(VENV)/triton -r requirements/triton.txt
	@touch $@

$(OLDEST)/stamp: pyproject.toml $(wildcard requirements/*.txt) | check-python
	$(call install,$(OLDEST),requirements/oldest.txt)
	@touch $@

# A new environment with what a list has, PyTorch and this folder.
define install
$(PYTHON) -m venv $1
$(AGAIN) $1/bin/python $(LOCKED) -r requirements/build.txt
$(AGAIN) $1/bin/python $(LOCKED) -r $2
$(AGAIN) $1/bin/python $(PIP) -r requirements/torch.txt
$1/bin/python $(PIP) --no-deps --no-build-isolation -e .
endef

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "difftool needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)"; \
		echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; } >&2
