# `make app` starts the application, `make test` runs every check; each first sets up what it needs.

# Relative, so that the project works in a path with spaces.
VENV_PYTHON := .venv/bin/python
# Empty: tools/setup.sh looks for one that suits.
PYTHON ?=
export PYTHON

.PHONY: help app test setup lint docs clean
.NOTPARALLEL:

help:
	@echo "make app     set up and start the application at http://127.0.0.1:7860"
	@echo "make test    set up, then lint, type check and run all tests"
	@echo "make setup   only set up (.venv and Debian's packages)"
	@echo "make lint    set up, then lint and type check"
	@echo "make docs    write the pages of docs/ that follow from the code"
	@echo "make clean   remove .venv and caches"

setup:
	@bash tools/setup.sh app

app: setup
	$(VENV_PYTHON) app.py

lint:
	@bash tools/setup.sh test
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy

docs:
	$(VENV_PYTHON) tools/make_docs.py

# Two workers: much of the time browsers and children are waited for. PYTEST_ARGS="-n 0 FILE" runs one file in one process.
# Types are checked beside them. pytest's closing line is the last one, unless types fail.
test:
	@bash tools/setup.sh test
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy > .mypy.log 2>&1 & types=$$!; \
	$(VENV_PYTHON) -m pytest -q -n 2 --dist loadfile $(PYTEST_ARGS); tests=$$?; \
	wait $$types || { cat .mypy.log; tests=1; }; rm -f .mypy.log; exit $$tests

clean:
	rm -rf .venv .setup.lock .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
