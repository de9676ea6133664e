# Two commands on a machine that has only Python 3.11, pip and make: make demo, make test.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test test-slow test-ray test-cluster test-third-party check format clean

install: $(STAMP)

# torch comes first and pinned: unpinned, it brings gigabytes of CUDA libraries.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,export,serve,test]'
	touch $(STAMP)

demo: install
	$(BIN)/dytrack demo

# The default tier: no Ray, no network, under 90 seconds.
test: install
	$(BIN)/python -m pytest -m "not ray and not cluster and not third_party and not slow and not gpu"

test-slow: install
	$(BIN)/python -m pytest -m slow

test-ray: install
	$(BIN)/python -m pytest -m ray

test-cluster: install
	$(BIN)/python -m pytest -m cluster

test-third-party: install
	$(BIN)/python -m pytest -m third_party

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo .pytest_cache .mypy_cache .ruff_cache
