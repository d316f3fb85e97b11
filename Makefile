# `make` alone lists the commands. Nothing here needs root. PYTHON=... chooses the Python that .venv is made from.

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python3.14,\
	$(if $(shell $(name) -c "import sys; print('fits' if sys.version_info >= (3, 11) else '')" 2>/dev/null),$(name))) python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.packages
DEV_READY := $(VENV)/.packages-dev
BENCH_READY := $(VENV)/.packages-bench
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCK := $(BIN)/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
	--no-emit-index-url --no-header --no-annotate
DATA_DIR ?= pymind_dataset
PYTEST_OPTIONS ?=
ACCURACY_OPTIONS ?= --write
TRUST_OPTIONS ?= --write
SUMMARY_OPTIONS ?= --write
BULK_OPTIONS ?= --write
CHAOS_OPTIONS ?= --write
SWAP_OPTIONS ?= --write
FAULTS_OPTIONS ?= --write
FUZZ_OPTIONS ?= --write

.DEFAULT_GOAL := help
.PHONY: help setup run test train sample lint format lock readme accuracy trust summary bulk chaos swap fuzz faults clean

help: ## list these commands
	@grep -hE '^[a-z]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(READY) ## make .venv and install what the product runs on

run: $(READY) ## sample tables and a model if there are none, then API, queue and worker (PORT=5000)
	@exec $(BIN)/python run.py

train: $(READY) ## learn from the tables with the full profile (DATA_DIR=..., MODELS_DIR=... or .env)
	@$(BIN)/python run.py --train

sample: $(READY) ## write the sample tables to DATA_DIR; their truth to var/sample_truth
	@$(BIN)/python -m ml_pipeline.sample_data --into "$(DATA_DIR)" --truth var/sample_truth

test: lint ## lint, then test in three processes (no root, no server running; some tests start their own)
	@$(BIN)/python -m tests.side_by_side --durations=10 $(PYTEST_OPTIONS)

lint: $(DEV_READY) ## style, types, direction of imports, Dockerfile, compose file, lock files
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "Not formatted; 'make format' does it."; exit 1; }
	@$(BIN)/mypy --no-error-summary -p ml_pipeline -p routes -p services -p worker -p running -m app -m config -m run -m docs.make_readme
	@$(BIN)/lint-imports --no-logo > $(VENV)/imports.log 2>&1 || { cat $(VENV)/imports.log; exit 1; }
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	@if grep -nE '://|--(extra-)?index-url|--find-links' requirements*.in requirements*.txt; then \
		echo "A requirements file names a host; where packages come from is the machine's affair (pip.conf)."; exit 1; fi
	@echo "Lint: ruff, mypy, import-linter, hadolint, compose schema, lock files: all fine."

format: $(DEV_READY) ## put the code into its form
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

lock: $(DEV_READY) ## requirements*.in -> requirements*.txt, newest versions that fit together
	@$(LOCK) --upgrade requirements.in -o requirements.txt
	@$(LOCK) --upgrade requirements-dev.in -o requirements-dev.txt
	@$(LOCK) --upgrade requirements-bench.in -o requirements-bench.txt

readme: $(DEV_READY) ## train the default sample, run the tour, and write their numbers into README.md and docs/reasons.md
	@$(BIN)/python -m docs.make_readme

accuracy: $(BENCH_READY) ## measure on public data beside every peer, into docs/accuracy.md (an hour or two)
	@$(BIN)/python -m benchmarks.accuracy $(ACCURACY_OPTIONS)

trust: $(BENCH_READY) ## measure intervals, sums, coherence and reasons on public data, into docs/trust.md
	@$(BIN)/python -m benchmarks.trust $(TRUST_OPTIONS)

summary: $(BENCH_READY) ## measure what summary numbers tell beside the whole history, into docs/summary_accuracy.md (half an hour)
	@$(BIN)/python -m benchmarks.summary_accuracy $(SUMMARY_OPTIONS)

bulk: $(DEV_READY) ## measure a million rows in and out beside a data scientist's script, into docs/bulk_speed.md (an hour)
	@$(BIN)/python -m benchmarks.bulk $(BULK_OPTIONS)

chaos: $(DEV_READY) ## run bulk jobs while workers, web and queue are killed, and compare every result, into docs/bulk_chaos.md (ten minutes)
	@$(BIN)/python -m benchmarks.chaos $(CHAOS_OPTIONS)

fuzz: $(DEV_READY) ## send thousands of requests made from the API's own document, into docs/api_fuzz.md (minutes)
	@$(BIN)/python -m benchmarks.api_fuzz $(FUZZ_OPTIONS)

faults: $(DEV_READY) ## ask for insights while the language model's endpoint fails in every way, into docs/insights_faults.md (minutes)
	@$(BIN)/python -m benchmarks.insights_faults $(FAULTS_OPTIONS)

swap: $(DEV_READY) ## change models under load, bad ones among them, and compare every answer, into docs/hot_swap.md (five minutes)
	@$(BIN)/python -m benchmarks.hot_swap $(SWAP_OPTIONS)

clean: ## delete what is made (.venv, var, caches); tables and models stay
	@rm -rf $(VENV) var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else 'Python 3.11 or newer is needed; $(PYTHON) is %d.%d. Install one, or name it: make PYTHON=/path/to/python3.12 ...' % v[:2])" \
		|| { command -v "$(PYTHON)" > /dev/null || echo "There is no $(PYTHON). Install Python 3.11 or newer (python.org, apt install python3-venv, brew install python), or name it: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@$(PYTHON) -c "import venv, ensurepip" 2> /dev/null \
		|| { echo "$(PYTHON) comes without venv and pip. Debian and Ubuntu: sudo apt install python3-venv (or the one of its version, python3.12-venv). Without root: any Python of python.org, pyenv or uv has both; name it by PYTHON=..."; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(READY): requirements.txt | $(VENV)/bin/python
	@echo "Installing the packages of requirements.txt (a few minutes the first time)"
	@$(PIP) install -r requirements.txt
	@$(BIN)/python -c "import lightgbm, xgboost" 2> $(VENV)/import.log || { tail -1 $(VENV)/import.log; \
		echo "LightGBM and XGBoost need the OpenMP library of the system: sudo apt install libgomp1 (Debian, Ubuntu), brew install libomp (macOS)."; exit 1; }
	@touch $@

$(DEV_READY): requirements-dev.txt $(READY)
	@echo "Installing the packages of requirements-dev.txt"
	@$(PIP) install -r requirements-dev.txt
	@touch $@

$(BENCH_READY): requirements-bench.txt $(READY)
	@echo "Installing the packages of requirements-bench.txt"
	@$(PIP) install -r requirements-bench.txt
	@touch $@
