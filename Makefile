# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test files side by side: most of their time is waiting.
WORKERS := 3
# What the properties draw their examples from in test-fresh.
SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')

.DEFAULT_GOAL := help
.PHONY: help setup lock generate check format test test-unit test-fresh test-integration test-e2e test-faults test-crash demo bench clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## Make .venv from the lock file

$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "Installing the packages of requirements.lock into $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lock: setup  ## Renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --upgrade \
	  --python-version 3.11 --group dev pyproject.toml --output-file requirements.lock

generate: setup  ## Write manifests/crd.yaml from the models and docs/cli.md from the program
	$(BIN)/python -m tools.generate.crd --write
	$(BIN)/python -m tools.generate.cli --write

check: setup  ## Lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup test-fresh  ## All tests: unit, integration (PostgREST, Prefect), end to end (Kubernetes API server)
	$(BIN)/python -m devstack build || true  # what cannot be had skips its tests and says why
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test-unit: setup  ## The tests that take seconds
	$(BIN)/pytest tests/unit tests/contract tests/suite -m "not integration"

test-fresh: setup  ## The properties with new examples; SEED=... has those of an earlier run again
	$(BIN)/pytest tests/unit tests/suite --fresh-seed $(SEED)

test-integration: setup  ## The tests against real PostgREST and Prefect
	$(BIN)/pytest -m integration

test-e2e: setup  ## The tests against a real Kubernetes API server
	$(BIN)/pytest -m e2e

test-faults: setup  ## Faults between a controller process and its services, and a thousand policies: minutes
	$(BIN)/pytest -m faults

test-crash: setup  ## Kill a controller at each step of a scan, and restart what it talks to: minutes
	$(BIN)/pytest -m crash

demo: setup  ## See it work on real parts; KEEP=1 leaves them running to play with
	@$(BIN)/python -m demo $(if $(KEEP),--keep)

bench: setup  ## Measure it on real parts, in 20 minutes on a quiet machine; QUICK=1 only tries that out
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

clean:  ## Remove .venv and caches of tools (not the built parts in the user's cache)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
