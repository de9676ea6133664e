# Two commands on a machine that has only Python 3.11, pip and make: make demo, make test.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_OPTIONS ?=

# Compiled modules are kept, whatever the caller's setting: without them each of the processes that
# a test tier starts compiles everything anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install demo test test-slow test-ray test-ray-first test-ray-later test-cluster test-cluster-then-ray test-third-party test-demo fuzz check format docs reference coverage sbom clean

install: $(STAMP)

# torch comes first and pinned: unpinned, it brings gigabytes of CUDA libraries.
# PIP_OPTIONS=--no-compile takes a minute less, and whatever is imported is compiled then.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --constraint constraints.txt --editable '.[dev,docs,export,serve,test]'
	touch $(STAMP)

demo: install
	$(BIN)/dytrack demo

# The default tier: no Ray, no network; 100 seconds on two cores, and the goal is 90. Three processes share it, as
# some of its tests wait; what only the other tiers run is not even imported.
DEFAULT_TIER := -n 3 --dist worksteal -m "not ray and not cluster and not third_party and not slow and not demo and not gpu" \
	$(addprefix --ignore=tests/,ray cluster third_party)

test: install
	$(BIN)/python -m pytest $(DEFAULT_TIER)

test-slow: install
	$(BIN)/python -m pytest -m slow

# Much of this tier waits, for processes that start and for services that are away: two at a time,
# each with a Ray of its own. Tests of one file share what they made, so they stay together.
test-ray: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m ray

# The same in two halves, for CI: these files bear a busy machine, and run while the slow tier does.
RAY_LATER := $(addprefix tests/ray/test_,evaluate.py ingest.py registry.py train.py trials.py)

test-ray-first: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m ray $(RAY_LATER:%=--ignore=%)

test-ray-later: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m ray $(RAY_LATER)

# Each of the two has hosts, services and addresses of its own.
test-cluster: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m cluster

test-cluster-then-ray: test-cluster
	$(MAKE) test-ray-later

test-third-party: install
	$(BIN)/python -m pytest -m third_party

test-demo: install
	$(BIN)/python -m pytest -m demo

# Inputs made at random from what a reader has seen, for a quarter of a minute each.
fuzz: install
	$(BIN)/python -m tests.fuzz --seconds 15

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in site/; a warning is an error. make reference writes the pages that come from the code.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

reference: install
	$(BIN)/python docs/tools/reference.py

# Lines that the default tier runs, in its processes and in those that tests start.
coverage: install
	$(BIN)/python -m pytest $(DEFAULT_TIER) -q --cov --cov-report=
	$(BIN)/python -m coverage report --skip-covered --sort=cover
	@echo "per cent without the files that import Ray or start one, which this tier cannot run:"
	@$(BIN)/python -m coverage report --format=total --precision=1 --omit="$$(grep -rlE '^ *(import ray|from ray)|ray_session' \
		platform/dytrack_platform pipelines/dytrack_pipelines --include=*.py | paste -sd,)"

# What is installed, with versions and licences (CycloneDX).
sbom: install
	$(BIN)/python docs/tools/sbom.py sbom.json

clean:
	rm -rf demo site sbom.json .pytest_cache .mypy_cache .ruff_cache
