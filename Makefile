# Two commands for a newcomer: `make demo` and `make test`. Each sets itself up.
PYTHON ?= $(or $(shell command -v python3.11 || command -v python3),python3.11)
VENV := .venv
DEMO_HOME ?= var/demo
BIN := $(VENV)/bin
CODE := $(wildcard nearline spark_jobs training serving pipeline feature_repo dags tests benchmarks)
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.dev-installed
FIND_LINKS := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS))
UV_INSTALL := $(BIN)/uv pip install -q --python $(BIN)/python --index-strategy unsafe-best-match $(FIND_LINKS)

.DEFAULT_GOAL := help
.PHONY: help demo up down install freshness test test-long check format docs lock clean java

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { echo "Python 3.11 is missing: install it, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

java:
	@java -version 2>&1 | grep -q 'version "17\.' || { echo "Java 17 is missing: install a Java 17 runtime (Debian: apt-get install openjdk-17-jre-headless) and put it on the PATH"; exit 1; }

# uv installs in seconds; pip does the same where uv cannot be had. Bytecode is made now, once: the
# scheduler's tasks are processes that import Spark, Feast or torch anew. So are Spark's Java classes.
$(STAMP): requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing the locked requirements into $(VENV)"
	@if $(BIN)/python -m pip install -q --disable-pip-version-check uv 2>/dev/null; then \
	  $(UV_INSTALL) --compile-bytecode -r requirements.txt -e . ; \
	else $(BIN)/python -m pip install -q -r requirements.txt -e . ; fi
	@if java -version >/dev/null 2>&1; then $(BIN)/python -m spark_jobs.class_archive; fi
	@touch $@

$(DEV_STAMP): $(STAMP) requirements-dev.txt
	@if [ -x $(BIN)/uv ]; then \
	  $(UV_INSTALL) -r requirements-dev.txt ; \
	else $(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt ; fi
	@touch $@

install: $(STAMP) ## Make .venv and install everything that running needs

demo: java $(STAMP) ## Play MovieLens-100K once round the ring, report, and stop
	@NEARLINE_HOME=$(DEMO_HOME) $(BIN)/nearline demo

up: java $(STAMP) ## The same, and stay: Airflow, the API and live traffic
	@NEARLINE_HOME=$(DEMO_HOME) $(BIN)/nearline demo --stay

down: $(STAMP) ## End what `make up` left running
	@NEARLINE_HOME=$(DEMO_HOME) $(BIN)/nearline down

freshness: $(STAMP) ## Tell what each clock is worth on MovieLens-100K
	@mkdir -p var/freshness
	@$(BIN)/nearline replay --events movielens-100k --max-minutes 14 \
	  --json var/freshness/freshness.json --plot var/freshness/freshness.png

# Threads of one product would only wait for those of the other file; the long files come early by name.
test: java $(DEV_STAMP) ## Run the tests, two files at a time
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-long: java $(DEV_STAMP) ## Run the tests that take minutes: a cluster, a storm
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long

check: $(DEV_STAMP) ## Lint, format check and types
	@$(BIN)/ruff check -q --output-format concise $(CODE)
	@$(BIN)/ruff format -q --check $(CODE)
	@$(BIN)/sqlfluff lint -q --disable-progress-bar dbt_project/models dbt_project/tests
	@$(BIN)/mypy

format: $(DEV_STAMP) ## Format the code
	@$(BIN)/ruff check -q --output-format concise --fix $(CODE)
	@$(BIN)/ruff format -q $(CODE)

docs: $(STAMP) ## Make the reference pages from the code
	@$(BIN)/python -m pipeline.reference

lock: $(STAMP) ## Make requirements.txt from requirements.in
	@$(BIN)/uv pip compile -q --no-header --index-strategy unsafe-best-match $(FIND_LINKS) requirements.in -o requirements.txt
	@sed -i 's/+cpu$$//' requirements.txt
	@$(BIN)/uv pip compile -q --no-header --index-strategy unsafe-best-match $(FIND_LINKS) requirements-dev.in -o requirements-dev.txt

clean: ## Remove everything that was made, data included
	rm -rf $(VENV) var *.egg-info .mypy_cache .ruff_cache .pytest_cache
