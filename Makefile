# Everything a developer or a first visitor does here. `make` lists it.

PYTHON ?= python3
# cpu: PyTorch's CPU build (small). cuda: the build with NVIDIA's libraries (several GB).
TORCH ?= cpu
# A good part of the tests waits for servers: two at a time, file by file.
TEST_PROCESSES ?= 2
VENV := .venv
BIN := $(VENV)/bin
TRITON_VENV := .venv-tritonclient
INSTALLED := $(VENV)/.installed-$(TORCH)

.DEFAULT_GOAL := help
.PHONY: help setup demo soak chaos up test test-fast check lint format types contracts protos check-protos bench bench-quick bench-soak clean

help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) $(TRITON_VENV)/.installed ## Make the virtual environments (once; TORCH=cuda for NVIDIA)

NATIVE := $(wildcard services/modelyard/http2/native/*.[ch] services/modelyard/inference/lane/native/*.[ch])

$(INSTALLED): pyproject.toml hatch_build.py tools/install_torch.sh $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'pip>=25.1'
	tools/install_torch.sh $(BIN)/python $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[demo]' --group dev
	@touch $@

# The stock Triton client wants an older NumPy, and stands for somebody else's program anyway: a venv of its own.
$(TRITON_VENV)/.installed: Makefile
	$(PYTHON) -m venv $(TRITON_VENV)
	$(TRITON_VENV)/bin/python -m pip install --quiet 'tritonclient[grpc]==2.50.0'
	@touch $@

demo: setup ## Start a cluster, train on real data, serve it, swap under load, stop everything
	$(BIN)/python demo/run.py

up: setup ## Keep a cluster running on port 8500 until Ctrl-C
	$(BIN)/modelyard up

test: check ## All checks and all tests (what CI runs)
	$(BIN)/pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile

test-fast: setup ## The tests that take seconds
	$(BIN)/pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile -m 'not slow'

soak: setup ## 1,000 promotions under load: no request fails, memory stays (about ten minutes)
	MODELYARD_SOAK_SWAPS=1000 $(BIN)/pytest -s tests/integration/inference/test_swap_soak.py

# The seed repeats a run's faults; by default a new one.
SEED ?=
JOBS ?= 200
MINUTES ?= 60
# Seconds between two faults, in the mean: the slower the machine, the more it needs.
PAUSE ?= 6
chaos: setup ## Break a real cluster at random while 200 jobs run: nothing is lost, nothing doubled (up to an hour)
	PYTHONPATH=tests $(BIN)/python -m chaos run $(if $(SEED),--seed $(SEED)) \
		--jobs $(JOBS) --minutes $(MINUTES) --pause $(PAUSE)

check: setup lint types contracts check-protos ## All checks, no tests

lint: setup ## Style and common mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup ## mypy --strict
	$(BIN)/mypy

contracts: setup ## Who may import whom
	$(BIN)/lint-imports

protos: setup ## Generate code from protos/
	$(BIN)/python tools/generate_protos.py

check-protos: setup ## Proto style, breaking changes, stale generated code
	cd protos && ../$(BIN)/buf lint
	tools/check_breaking.sh $(BIN)/buf
	$(BIN)/python tools/generate_protos.py --check

bench: setup ## Measure beside Triton, MLServer, KServe and the limits (half an hour on a quiet machine)
	$(BIN)/python -m benchmarks run

bench-quick: setup ## The same, a rough look in a few minutes
	$(BIN)/python -m benchmarks run --quick

# Calls that are sent; one in ten is cancelled or expires.
SOAK_REQUESTS ?= 5000000
bench-soak: setup ## Millions of requests, some given up: all others answered, memory flat?
	$(BIN)/python -m benchmarks soak --requests $(SOAK_REQUESTS)

clean: ## Remove the virtual environments and caches
	rm -rf $(VENV) $(TRITON_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
