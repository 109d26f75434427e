# make demo    the terminal app on a chain, a market and a seller of this machine's own
# make test    lint, types, floors and all tests
# make bench   speed, as ratios to bare equivalents
# make help    the rest

SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
PYTEST_ARGS ?= -n 2 --dist loadfile

.PHONY: help demo install dev test lint pytest bench lock contracts clean

help:  ## list these targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install:  ## a virtual environment with what is needed to run
	@bash scripts/install.sh run

dev:  ## the same, with what is needed to test
	@bash scripts/install.sh dev
	@bash scripts/system.sh

demo: install  ## the terminal app, everything on this machine
	@$(BIN)/python -m computeswarm demo

test: dev lint pytest  ## everything that CI checks

lint: dev  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

pytest: dev lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

bench: dev  ## speed, as ratios from one run
	$(BIN)/python -m benchmarks

lock:  ## write requirements/*.lock anew from pyproject.toml
	bash scripts/lock.sh

contracts: dev  ## build the Solidity contracts' artifacts
	npm run --prefix contracts build

clean:  ## remove everything that was installed or built here
	rm -rf .venv .cache build dist *.egg-info contracts/node_modules tests/e2e/x402_npm/node_modules
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
