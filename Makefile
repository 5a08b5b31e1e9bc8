# One command runner. Every target sets the environment up first; that takes minutes once, then milliseconds.
# `make help` prints the lines behind `##`. ARGS goes to the command: make test ARGS="tests/gist -k format"

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
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest -p no:cacheprovider

NO_ENGINE := not vllm and not ray and not e2e and not attack and not slow

.PHONY: help setup demo serve test quick coverage lint docs bench attack
.DEFAULT_GOAL := help

help: ## this list
	@echo 'make TARGET [ARGS="..."] [EXTRAS=cuda,dev] [PYTHON=/path/to/python3.11]'
	@awk -F ': [^#]*## ' '/^[a-z]+: .*## / { printf "  %-9s %s\n", $$1, $$2 }' Makefile

setup: ## .venv with PyTorch, vLLM, Ray and this package, and the base model in your cache; minutes once
	@test -n "$(PYTHON)" || { echo "set-up failed: no Python 3.11 or 3.12 found (make PYTHON=/path/to/python3.11)" >&2; exit 1; }
	@$(PYTHON) deploy/setup/environment.py --venv $(VENV) --extras $(EXTRAS)

demo: setup ## a server of its own, an edit that changes an answer, 1,000 more edits; some minutes
	@$(OFFLINE) $(BIN)/incomes demo $(ARGS)

# Online: its model may be one of the hub.
serve: setup ## incomes serve; make serve ARGS="--port 9000"
	@$(QUIET) $(BIN)/incomes serve $(ARGS)

test: setup ## all suites, two side by side; or the tests named by ARGS
	$(if $(strip $(ARGS)),$(PYTEST) $(ARGS),$(TEST_ENV) $(BIN)/python -m tests.suites)

quick: setup ## the tests that need neither engine nor Ray and are not marked slow
	$(PYTEST) -q -m "$(NO_ENGINE)" $(ARGS)

coverage: setup ## all suites, and the lines of server and runtime that they run, in all their processes
	$(TEST_ENV) $(BIN)/python -m tests.suites --coverage $(ARGS)

lint: setup ## ruff, mypy and the import contracts, as CI and pre-commit run them
	$(BIN)/ruff check --no-cache
	$(BIN)/ruff format --no-cache --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: setup ## the site in build/site, with every link checked, and the tests that keep docs and code together
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)
	$(PYTEST) -q tests/docs

bench: setup ## measure serving beside stock vLLM; make bench ARGS=--quick
	$(OFFLINE) $(BIN)/python -m benchmarks $(ARGS)

# ATTACK_SECONDS=60 shortens the load, ATTACK_FIGURES=FILE keeps what is measured.
attack: setup ## what careless or hostile callers and operators do, at length: about an hour
	ATTACK=long $(PYTEST) tests/attack $(ARGS)
