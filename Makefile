# `make app` and `make test` do all of their own set-up. Override PYTHON to choose another Python, 3.11 to 3.14.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where `make package` installs the wheel, and where `make test-latest` installs the newest versions.
ALONE := .venv-package
LATEST := .venv-latest
PIP := python -m pip --disable-pip-version-check install -q

.PHONY: app test lint types unit browser-test browser docs package lock test-latest bench demo screenshots clean

## Open the dashboard on the bundled demo. Other runs: make app RUNS="path/to/run another"
app: $(VENV)/.app
	$(BIN)/clipsel app $(RUNS)

## Everything: lint, types, unit tests, browser tests, documentation.
test: lint types unit browser-test docs

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto -m "not browser and not installed and not cluster"
	$(BIN)/python -m pytest -m cluster

browser-test: $(VENV)/.dev browser
	$(BIN)/python -m pytest -n 2 -m browser

## A Chromium for the browser tests, where the machine has none.
browser: $(VENV)/.dev
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { \
	  if command -v apt-get >/dev/null; then \
	    sudo=$$(command -v sudo || true); $$sudo apt-get update -qq && $$sudo apt-get install -y -qq chromium; \
	  else $(BIN)/playwright install chromium; fi; }

## The documentation, into site/.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

## Build the wheel, install it from the lock into an empty environment, and use it there.
package: $(VENV)/.dev browser
	rm -rf dist $(ALONE)
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w dist .
	$(PYTHON) -m venv $(ALONE)
	$(ALONE)/bin/$(PIP) --no-compile --require-hashes -r requirements.lock
	$(ALONE)/bin/$(PIP) --no-deps dist/clipsel-*.whl
	CLIPSEL_INSTALLED=$(ALONE)/bin/clipsel $(BIN)/python -m pytest -m installed
	rm -rf $(ALONE)

## Choose the newest versions that the ranges of pyproject.toml allow, and lock them.
lock: $(VENV)/.dev
	sh -c '$(BIN)/uv pip compile -q --universal --generate-hashes --upgrade --python-version 3.11 \
	  --custom-compile-command "make lock" --extra build -o requirements.lock pyproject.toml && \
	$(BIN)/uv pip compile -q --universal --generate-hashes --upgrade --python-version 3.11 \
	  --custom-compile-command "make lock" --extra build --extra dev -c requirements.lock \
	  -o requirements-dev.lock pyproject.toml'
	$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); \
	  print("# The ranges of pyproject.toml; make lock writes this file.", *p["project"]["dependencies"], sep="\n")' \
	  > requirements.txt

## The unit and browser tests with the newest versions that the ranges allow, whatever the lock says.
test-latest: browser
	$(PYTHON) -m venv --clear $(LATEST)
	$(LATEST)/bin/$(PIP) -e ".[build,dev]"
	$(LATEST)/bin/python -m pytest -n auto -m "not browser and not installed and not cluster"
	$(LATEST)/bin/python -m pytest -m cluster
	$(LATEST)/bin/python -m pytest -n 2 -m browser

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

## Build the bundled demo again from nothing.
demo: $(VENV)/.app
	rm -rf data/demo && $(BIN)/clipsel demo data/demo --build

screenshots: $(VENV)/.dev browser
	$(BIN)/python docs/screenshots.py

clean:
	rm -rf $(VENV) $(ALONE) $(LATEST) dist site .pytest_cache .ruff_cache .mypy_cache

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
	  { echo "clipsel needs Python 3.11 to 3.14; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.app: $(VENV)/.python pyproject.toml requirements.lock
	$(BIN)/$(PIP) --require-hashes -r requirements.lock
	$(BIN)/$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.app requirements-dev.lock
	$(BIN)/$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@
