# `make app` and `make test` do all of their own set-up. Override PYTHON to choose another Python, 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: app test lint types unit browser-test browser bench demo screenshots clean

## Open the dashboard on the bundled demo. Other runs: make app RUNS="path/to/run another"
app: $(VENV)/.app
	$(BIN)/streamlit run app.py -- $(RUNS)

## Everything: lint, types, unit tests, browser tests.
test: lint types unit browser-test

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -n 4 -m "not browser"

browser-test: $(VENV)/.dev browser
	$(BIN)/python -m pytest -n 2 -m browser

## A Chromium for the browser tests, where the machine has none.
browser: $(VENV)/.dev
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { \
	  if command -v apt-get >/dev/null; then \
	    sudo=$$(command -v sudo || true); $$sudo apt-get update -qq && $$sudo apt-get install -y -qq chromium; \
	  else $(BIN)/playwright install chromium; fi; }

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

## Build the bundled demo again from nothing.
demo: $(VENV)/.app
	rm -rf data/demo && $(BIN)/python -m clipsel_core demo data/demo

screenshots: $(VENV)/.dev browser
	$(BIN)/python docs/screenshots.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "clipsel needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.app: $(VENV)/.python requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.app requirements-dev.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	@touch $@
