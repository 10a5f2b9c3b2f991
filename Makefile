# `make run` serves and `make test` tests; each first sets up what it needs. Only python3 (3.11 or newer) must be there.

PYTHON ?= python3
MUTANTS_MINUTES ?= 60
VENV   := .venv
IN     := $(VENV)/bin/python
# In a bundle the wheels lie beside the program, and no network is asked.
FROM   := $(if $(wildcard wheels),--no-index --find-links wheels)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run dev test cover mutants lint translations compile bundle clients screenshots soak bench clean

help:                       ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: $(VENV)/ready          ## install what is needed and serve at http://127.0.0.1:8000
	@exec $(IN) app.py

dev: $(VENV)/ready          ## serve for development: changes are loaded at once, errors shown in the browser
	@$(IN) -m flask --app app run --debug --port 8000

test: $(VENV)/ready-to-test ## run all tests, or those of SUITE="tests/money tests/db"
	$(IN) -m pytest -n 2 --dist worksteal $(SUITE)

cover: $(VENV)/ready-to-test ## run all tests and name the lines that none of them reached
	$(IN) -m pytest -n 2 --dist worksteal --cov --cov-report=term-missing:skip-covered

mutants: $(VENV)/ready-to-test ## make small mistakes in the money's code and at the gate, and name those that no test notices
	$(IN) -m pip install --quiet mutmut==3.8.1
	rm -rf mutants
	timeout $(MUTANTS_MINUTES)m $(IN) -m mutmut run --max-children 2 || test $$? = 124  # what was not reached is named
	$(IN) -m tests.mutants

lint: $(VENV)/ready-to-test ## look for mistakes and untidiness in the code
	$(IN) -m ruff check .
	$(IN) -m ruff format --check --quiet . || { echo 'Some files are not formatted: $(IN) -m ruff format' >&2; exit 1; }
	$(IN) -m mypy

translations: $(VENV)/ready ## compile the translations and name what is untranslated
	$(IN) -m console.ui

compile: translations       ## compile the program and its translations: a service may not write beside its code
	$(IN) -m compileall -q -x snippets/ *.py commands console db members relay server settings

bundle: $(VENV)/ready       ## relay-bundle.tar.gz: all that a machine without a network needs for `make run` (same Python and system)
	rm -rf build relay-bundle.tar.gz
	mkdir -p build/relay
	git archive HEAD | tar -x -C build/relay
	$(IN) -m pip download --quiet --require-hashes --no-deps --only-binary :all: -r requirements.txt -d build/relay/wheels
	tar -czf relay-bundle.tar.gz -C build relay
	rm -rf build
	@ls -l relay-bundle.tar.gz

clients: $(VENV)/ready      ## install real agents in .clients/ and run them and the documented samples against the relay
	$(IN) -m tests.clients

screenshots: $(VENV)/ready-to-test ## photograph every page into screenshots/ (Chromium must be there)
	$(IN) -m tests.console.screenshots

soak: $(VENV)/ready         ## ten minutes of random faults: nothing may grow, and every charge must be right
	$(IN) -m tests.soak.run
	$(IN) -m tests.soak.kills
	$(IN) -m tests.soak.overspend

bench: $(VENV)/ready        ## measure the relay, beside others where `python -m bench --install-peer` was run
	$(IN) -m bench

clean:                      ## remove the virtual environment and what tests leave behind
	rm -rf $(VENV) build relay-bundle.tar.gz mutants .coverage .clients .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# A stamp tells that the virtual environment holds what a list asks for, so that a second run starts at once.
$(VENV)/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed. If it has another name: make PYTHON=python3.11 run' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'Python has no venv here. On Debian and Ubuntu: sudo apt install python3-venv' >&2; exit 1; }
	@$(IN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(IN) -m pip install --quiet --require-hashes $(FROM) -r requirements.txt
	@touch $@

$(VENV)/ready-to-test: requirements-dev.txt $(VENV)/ready
	$(IN) -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@
