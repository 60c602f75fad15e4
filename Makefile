# Everything a fresh machine needs is made here: a virtual environment, the package, its tools.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
export XDG_CACHE_HOME ?= $(HOME)/.cache

.PHONY: coverage demo test test-fast lint bench docs clean

# torch first and pinned: an open range would fetch a GPU build of several gigabytes.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) torch
	$(PIP) --editable '.[cluster,diffusion,gguf,hub,index,ot,parquet,plot]'
	@touch $@

$(VENV)/developed: $(VENV)/installed
	$(PIP) coverage hypothesis import-linter
	$(PIP) nltk sacrebleu torchmetrics
	$(PIP) compressed-tensors pandas scikit-dimension
	$(PIP) pre-commit pyright pytest pytest-timeout pytest-xdist ruff triton
	@touch $@

demo: $(VENV)/installed
	BNTOOLS=$(BIN)/bntools sh examples/demo.sh demo

test: $(VENV)/developed lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --durations=20

# A third more work than the tests alone: for a look now and then, not for the gate.
coverage: $(VENV)/developed
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -q -n 2 --dist loadfile
	$(BIN)/coverage combine --quiet && $(BIN)/coverage report --skip-covered

test-fast: $(VENV)/developed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not slow and not real'

lint: $(VENV)/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/python -m bntools._docs --check

docs: $(VENV)/installed
	$(BIN)/python -m bntools._docs

bench: $(VENV)/developed
	for script in tests/benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .ruff_cache .hypothesis
