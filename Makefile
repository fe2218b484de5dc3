# Everything a person does here. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export MIXPEEK_HOME ?= $(CURDIR)/.mixpeek
export DAGSTER_HOME ?= $(CURDIR)
export DAGSTER_STATE ?= $(DAGSTER_HOME)/.dagster
DAGSTER_PORT ?= 3000
API_PORT ?= 8000
JOBS ?= auto
# Compiled modules are kept: without them every run worker compiles this package anew, half a second each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo dev test check bench clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(BIN)/.ready ## Make .venv with everything, from the package registries alone

$(BIN)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: setup ## Sync the example files from a folder and from S3, extract, search; run it twice
	@$(BIN)/python -m examples.demo

dev: setup ## Start the Dagster UI and daemon and the REST API, with state kept in this folder
	@echo "Dagster UI: http://127.0.0.1:$(DAGSTER_PORT)   REST API: http://127.0.0.1:$(API_PORT)/docs"
	@$(BIN)/mixpeek-dagster serve --host 127.0.0.1 --port $(API_PORT) & api=$$!; trap 'kill $$api 2>/dev/null' EXIT INT TERM; \
	DAGSTER_RUN_STATUS_SENSOR_PROCESS_LIMIT=50 $(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p $(DAGSTER_PORT)

test: setup ## Run every test; skipped ones say why
	@$(BIN)/python -m tests.browser
	$(BIN)/pytest -rs -n $(JOBS) --dist loadgroup

check: setup ## Lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## Measure; `make bench Q=overhead` measures one question. Results go to .bench/
	@$(BIN)/python -m tests.benchmarks $(Q)

clean: ## Forget the state of this folder: catalog, models stay in their cache
	rm -rf .mixpeek .dagster .bench
