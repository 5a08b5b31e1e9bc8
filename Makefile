# One command runner. Every target sets the environment up first; that takes minutes once, then milliseconds.
#   make setup | demo | test | lint | bench | serve | docs | attack
#   make test ARGS="tests/gist -k format"      make serve ARGS="--port 9000"
#   make bench ARGS=--quick                    make setup EXTRAS=cuda,dev

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= cpu,dev
ARGS ?=

# Tests and benchmarks share a small machine with the engine they start: one thread each, a small KV cache, no network.
QUIET := VLLM_NO_USAGE_STATS=1 RAY_USAGE_STATS_ENABLED=0 TOKENIZERS_PARALLELISM=false
OFFLINE := HF_HUB_OFFLINE=1 $(QUIET)
TEST_ENV := $(OFFLINE) OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1

.PHONY: help setup demo test lint bench serve docs attack
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   /  /p' Makefile

setup:
	@test -n "$(PYTHON)" || { echo "set-up failed: no Python 3.11 or 3.12 found (make PYTHON=/path/to/python3.11)" >&2; exit 1; }
	@$(PYTHON) deploy/setup/environment.py --venv $(VENV) --extras $(EXTRAS)

demo: setup
	@$(OFFLINE) $(BIN)/incomes demo $(ARGS)

# Online: its model may be one of the hub.
serve: setup
	@$(QUIET) $(BIN)/incomes serve $(ARGS)

# Engine tests and Ray tests each want to be the first in a process to import Ray, so every suite has its own.
SUITES := tests/incomes_plugin tests/server tests/e2e tests/attack tests/docs,tests/setup,tests/benchmarks
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest -p no:cacheprovider

test: setup
ifeq ($(strip $(ARGS)),)
	@status=0; for suite in $(SUITES); do $(PYTEST) $$(echo $$suite | tr , ' ') || status=1; done; exit $$status
else
	$(PYTEST) $(ARGS)
endif

lint: setup
	$(BIN)/ruff check --no-cache
	$(BIN)/ruff format --no-cache --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: setup
	$(OFFLINE) $(BIN)/python -m benchmarks $(ARGS)

docs: setup
	$(BIN)/python -m pytest -p no:cacheprovider -q tests/docs

# At length: about an hour. ATTACK_SECONDS=60 shortens the load, ATTACK_FIGURES=FILE keeps what is measured.
attack: setup
	ATTACK=long $(PYTEST) tests/attack $(ARGS)
