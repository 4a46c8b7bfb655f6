# Set-up is part of every target: from a fresh clone, `make demo` and `make test` need Python 3.11, a Python 3.10 for Lava
# (without one, the Lava rung is left out) and a C++17 compiler (without one, simulation runs on NumPy).

.PHONY: demo test lint types docs lava clean
.DELETE_ON_ERROR:

PYTHON := .venv/bin/python
KERNELS := $(wildcard snncompile/run/kernels/*)

demo: .venv/.ready
	@scripts/with-lava.sh scripts/demo.sh

test: .venv/.ready
	@scripts/with-lava.sh $(PYTHON) -m pytest

lint: .venv/.ready
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/lint-imports --no-logo

types: .venv/.ready
	@.venv/bin/mypy

docs: .venv/.docs
	@.venv/bin/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

lava:
	@scripts/lava-python.sh || { [ $$? -eq 3 ] && echo "no Python 3.10 found: name one with SNNCOMPILE_LAVA_PYTHON"; exit 1; }

.venv/.ready: pyproject.toml constraints.txt $(KERNELS)
	@scripts/make-venv.sh $@ dev

.venv/.docs: .venv/.ready
	@scripts/make-venv.sh $@ docs

clean:
	rm -rf .venv .venv-lava build dist docs/_build demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
