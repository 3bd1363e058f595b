# One command each: set up, look, check, test, measure.
PYTHON ?= python3
BIN := .venv/bin
PIP_QUIETLY := --disable-pip-version-check --quiet

.PHONY: setup demo check test bench lock clean

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.12, say")'
	@echo "Setting up .venv from requirements.lock: about 820 MB on disk, the first time, a minute or two."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install $(PIP_QUIETLY) --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install $(PIP_QUIETLY) --no-deps --no-build-isolation -e .
	@$(BIN)/pip check
	@touch $@

demo: setup
	@$(BIN)/call-agent demo

# Not taken from flake8-async: 9xx (optional: a checkpoint on every path of every function), 114 and 128 (they miss
# a task_status that is handed on), 124 (callbacks that must be async), 127 (httpx is given).
ASYNC_IGNORED := ASYNC9,ASYNC114,ASYNC124,ASYNC127,ASYNC128

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/flake8 --select ASYNC --extend-ignore $(ASYNC_IGNORED) agent tests
	$(BIN)/mypy

test: check
	$(BIN)/pytest -n 2 -m "not alone" --cov --cov-report=
	$(BIN)/pytest -m alone --cov --cov-append --cov-report=term:skip-covered

bench: setup
	@$(BIN)/call-agent bench

# Run after a change of the dependencies in pyproject.toml; the lock names hashes and no index.
lock:
	$(BIN)/pip-compile --quiet --all-extras --all-build-deps --allow-unsafe --generate-hashes --strip-extras \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv build dist demo-call
