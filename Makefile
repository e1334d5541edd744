# The verbs of the project; `make help` lists them. Everything runs in .venv, which `make setup` builds.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup demo up test chaos check bench lock clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# More arguments for the command behind a verb: make test ARGS="-k packaging", make up ARGS="--port 9000".
ARGS ?=
# Empty: `make lock` keeps the versions that are pinned.
UPGRADE ?= --upgrade
# How long `make chaos` does harm.
SECONDS ?= 60

# The first Python 3.11 or newer, or the one that is named: make setup PYTHON=python3.12
ifndef PYTHON
PYTHON := $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$name && break; done)
endif

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Build .venv from the hash-pinned requirements (only when they have changed)

demo: setup ## Start the service, score rows and a CSV through it, check every answer, report
	@$(BIN)/scorequeue demo $(ARGS)

up: setup ## Run the whole service here, with the demo models; Ctrl-C stops it
	@$(BIN)/scorequeue up --demo $(ARGS)

test: setup ## Run all tests (as root on Debian, installs the servers that some of them need)
	@sh tests/install_tools.sh
	@$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

chaos: setup ## Kill parts of a service at random (make chaos SECONDS=900) and check that no job is lost
	@$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(ARGS)

check: setup ## Lint, formatting, types and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup ## Run the benchmarks
	@$(BIN)/python -m benchmarks $(ARGS)

lock: ## Pin the newest allowed dependencies anew; make lock UPGRADE= adds what is missing alone (needs uv)
	@command -v uv >/dev/null || { echo "lock: uv is not installed; see https://docs.astral.sh/uv/" >&2; exit 1; }
	@for extra in api worker up dev; do \
	  echo "lock: requirements/$$extra.txt"; \
	  uv pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	    --no-emit-index-url --no-emit-find-links --extra $$extra pyproject.toml --output-file requirements/$$extra.txt \
	    || exit 1; \
	done

clean: ## Remove .venv, caches and builds (never .scorequeue, which holds data)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "setup: no Python 3.11 or newer was found." \
	  "Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "setup: $(PYTHON) is not Python 3.11 or newer, but: $$($(PYTHON) --version 2>&1)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "setup: $(PYTHON) lacks the modules venv and" \
	  "ensurepip. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "setup: making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "setup: installing the pinned dependencies (one to three minutes, about 200 MB to download)"
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "setup: done"
