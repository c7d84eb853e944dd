# Every target relies on `setup`, which makes .venv from requirements.lock whenever that changes.
PYTHON ?= python3.11
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PREFECT_PORT ?= 4200
export MLFLOW_PORT ?= 5000
export REPORTS_PORT ?= 8000
# Nothing phones home.
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: help setup pipeline flow ui test check format lock doctor benchmarks zoo
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## make the virtual environment .venv from the lock file

$(VENV)/.ready: requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "Python 3.11 is needed: make PYTHON=/path/to/python3.11 ...")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python --require-hashes -r requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	touch $@

pipeline: setup ## run what changed, from data to registered models (dvc repro), and print the leaderboard
	@segpipe check
	dvc repro
	@segpipe leaderboard

flow: setup ## the same as a Prefect flow, on the server of `make ui` where it runs
	@segpipe check
	python -m flows.run

ui: setup ## start the Prefect, MLflow and report servers on loopback (PREFECT_PORT, MLFLOW_PORT, REPORTS_PORT)
	python -m flows.servers

test: setup ## run all tests
	python -m pytest

check: setup ## ruff and mypy, read-only
	ruff check .
	ruff format --check .
	mypy

format: setup ## let ruff mend what it can
	ruff check --fix .
	ruff format .

lock: setup ## resolve pyproject.toml anew into requirements.lock
	uv pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --upgrade -o requirements.lock

doctor: setup ## what this machine has, and what would fail
	segpipe doctor

benchmarks: setup ## each benchmark runs both sides and prints a ratio
	for file in $(filter-out benchmarks/zoo%.py benchmarks/simulate_%.py,$(wildcard benchmarks/*.py)); do python -m benchmarks.$$(basename $$file .py) || exit 1; done

zoo: setup ## train every network for minutes on CamVid, one table (SOURCE=/path/to/CamVid, else a download; MINUTES ONLY JOBS THREADS WRITE)
	python -m benchmarks.zoo $(if $(SOURCE),--source "$(SOURCE)") $(if $(MINUTES),--minutes $(MINUTES)) $(if $(ONLY),--only $(ONLY)) \
		$(if $(JOBS),--jobs $(JOBS)) $(if $(THREADS),--threads $(THREADS)) $(if $(WRITE),--write $(WRITE))
