.DEFAULT_GOAL := help
.PHONY: help venv demo test check bench crashes clean
PYTHON ?= python3
BIN := .venv/bin
QUICK = tests/unit tests/typing tests/test_*.py
# Each of the three processes has a broker of its own and takes one file after the other: the long ones first.
SLOW = -n 3 --dist loadfile --no-loadscope-reorder tests/e2e tests/integration tests/bench tests/contract
LINT = $(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

# Where it is set, each of the several hundred processes that the tests start compiles every module again.
export PYTHONDONTWRITEBYTECODE =

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "installing packages into .venv (some 100 MB, once)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

venv: .venv/.installed ## build .venv in this clone

demo: venv ## a thousand orders over a real broker while a worker and a service are killed
	$(BIN)/saga demo

check: venv ## formatting, lint, types, architecture and unit tests: before every commit
	$(LINT)
	$(BIN)/pytest -q -n 2 $(QUICK)

bench: venv ## throughput, latency and CPU of the whole system, beside a floor in the same run
	$(BIN)/saga bench orders

test: venv ## everything that belongs to the gate, with its own broker
	$(LINT)
	deploy/system-packages
	$(BIN)/python -m orchestrator.broker --warm-up
	$(BIN)/pytest -q -n 2 $(QUICK) tests/protocol tests/sim
	$(BIN)/pytest -q $(SLOW)

crashes: venv ## kill workers and a service at every call they make to Kafka and RocksDB: half an hour
	$(BIN)/python -m tests.crashes --all

clean: ## remove what building and running left behind
	rm -rf .venv .saga dist build .mypy_cache .ruff_cache .pytest_cache
