# Everything a fresh machine needs: `make demo` runs the embedded competition, `make test` the tests. Both set up .venv.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: setup demo test test-slow lint clean

setup: $(VENV)/installed

$(VENV)/uv:
	$(PYTHON) -c 'import sys; sys.exit("Earshot needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check uv
	touch $@

# Everything, and what training needs alone: docs/installing.md.
$(VENV)/installed: requirements.txt $(wildcard requirements/*.txt) | $(VENV)/uv
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(RUN) -r requirements.txt
	touch $@ $(VENV)/trains

$(VENV)/trains: requirements/train.txt | $(VENV)/uv
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(RUN) -r requirements/train.txt
	touch $@

demo: $(VENV)/trains
	$(RUN) src/demo.py

# One thread a test process: two processes with threads of their own would fight over two cores. Bytecode is kept, also
# where the environment says not to: else every process, and every script that a test starts, compiles all it imports.
TESTS := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2

test: setup lint
	$(TESTS)

test-slow: setup
	$(TESTS) -m slow
	EARSHOT_EXAMPLES=100 $(TESTS) $$(grep -l hypothesis tests/test_*.py)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# What the next `make` builds again. Never runs/ and data/: they hold days of training and downloads.
clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +
