# The two commands: `make run` and `make test`. Everything they need is installed into .venv from requirements.lock.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock

DATA ?= ../shared/data

# Where a shell or an image sets it, each process would compile all packages anew: half of a process's start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test drill bench lint ui stop clean lock install install-dev

run: install
	@$(BIN)/ml-assets demo

ui: install
	@$(BIN)/ml-assets ui

stop: install
	@$(BIN)/ml-assets stop

test: install-dev
	@$(BIN)/pytest --numprocesses 2 --dist loadfile

drill: install-dev
	$(BIN)/python -W ignore -m ml_assets_tests.drills.exactness
	$(BIN)/python -W ignore -m ml_assets_tests.drills.exactness_of_data $(DATA)
	$(BIN)/python -W ignore -m ml_assets_tests.drills.swaps
	$(BIN)/python -W ignore -m ml_assets_tests.drills.kill_server
	$(BIN)/python -W ignore -m ml_assets_tests.drills.fuzz
	$(BIN)/python -W ignore -m ml_assets_tests.drills.canary
	$(BIN)/python -W ignore -m ml_assets_tests.drills.comparisons
	$(BIN)/python -W ignore -m ml_assets_tests.drills.drift
	$(BIN)/python -W ignore -m ml_assets_tests.drills.drift_days
	$(BIN)/python -W ignore -m ml_assets_tests.drills.rollouts
	$(BIN)/python -W ignore -m ml_assets_tests.drills.quarter
	$(BIN)/python -W ignore -m ml_assets_tests.drills.kill
	$(BIN)/python -W ignore -m ml_assets_tests.drills.probes

bench: install-dev
	$(BIN)/python -W ignore -m benchmarks.examples $(DATA)
	$(BIN)/python -W ignore -m benchmarks.estimators $(DATA)
	$(BIN)/python -W ignore -m benchmarks.ingest
	$(BIN)/python -W ignore -m benchmarks.arrival
	$(BIN)/python -W ignore -m benchmarks.features
	$(BIN)/python -W ignore -m benchmarks.scorer
	$(BIN)/python -W ignore -m benchmarks.monitoring
	$(BIN)/python -W ignore -m benchmarks.serving

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	@if [ -x $(BIN)/ml-assets ]; then $(BIN)/ml-assets stop; fi
	rm -rf .state

install: .venv/installed
install-dev: .venv/installed-dev

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] < (3, 14) else f"ml-assets needs Python 3.11 to 3.13; {sys.executable} is {v[0]}.{v[1]}. Try: make PYTHON=python3.12 run")'
	@echo "Creating .venv ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check uv

.venv/installed: .venv/bin/uv requirements.lock pyproject.toml setup.cfg
	@echo "Installing packages into .venv ..."
	@$(UV) --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "Installing test tools into .venv ..."
	@$(UV) --editable '.[dev]'
	@touch $@

# One lock for Python 3.11 to 3.13 and all extras; it names no package index. Only this target changes it.
lock: .venv/bin/uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate --no-header \
		pyproject.toml --output-file requirements.lock
	for image in endpoint endpoint-skops; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
			--constraint requirements.lock deploy/docker/$$image.in --output-file deploy/docker/$$image.txt; done
