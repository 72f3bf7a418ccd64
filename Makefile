# Everything a fresh machine needs: `make demo` runs the embedded competition, `make test` the tests. Both set up .venv.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: setup demo test test-slow lint clean

setup: $(VENV)/installed

$(VENV)/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit("Earshot needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip install --quiet --python $(RUN) -r requirements.txt
	touch $@

demo: setup
	$(RUN) src/demo.py

# One thread a test process: two processes with threads of their own would fight over two cores.
test: setup lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2

test-slow: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m slow

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV) runs data
