# Facade: everything a newcomer, a developer and CI run. `make help` lists it.
SHELL := /bin/bash
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
ARGS ?=
# Test processes: much of the suite waits.
JOBS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast bench fuzz soak lint format lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.runtime: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Facade needs Python 3.11 or newer; this is %d.%d. Set PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "Installing the locked dependencies into $(VENV) …"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements.txt
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	@$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

demo: $(VENV)/.runtime ## the whole main job on this machine (ARGS=--once exits when done)
	@$(VENV)/bin/facade demo $(ARGS)

test: $(VENV)/.dev ## every test; installs the Debian packages they need when root
	@bash .ci/packages
	@$(PY) -m pytest -n $(JOBS) $(ARGS)

test-fast: $(VENV)/.dev ## the quick tests only
	@$(PY) -m pytest -n $(JOBS) -m "not slow and not clients" $(ARGS)

bench: $(VENV)/.dev ## CPU and memory against nginx and docker-registry (ARGS=--quick: 3 minutes)
	@$(PY) -m tests.bench $(ARGS)

fuzz: $(VENV)/.dev ## atheris on every parser of what comes from outside (ARGS='--seconds 60 [HARNESS…]')
	@$(PY) -m tests.fuzz $(ARGS)

soak: $(VENV)/.dev ## ten minutes of mixed load with faults (ARGS='--minutes 3 --workers 2')
	@$(PY) -m tests.soak $(ARGS)

lint: $(VENV)/.dev ## ruff and mypy
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy

format: $(VENV)/.dev ## let ruff format and fix what it can
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

lock: ## resolve the dependencies again into requirements*.txt (needs uv)
	uv pip compile -q pyproject.toml --extra aws --extra google --generate-hashes --no-strip-extras --no-emit-index-url --no-header --universal --python-version 3.11 -o requirements.txt
	uv pip compile -q pyproject.toml --extra aws --extra google --extra otel --extra dev --generate-hashes --no-strip-extras --no-emit-index-url --no-header --universal --python-version 3.11 -o requirements-dev.txt

clean: ## remove what was built (not .facade, which holds state)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage certs-dev/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
