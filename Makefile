# The commands that people type. Each creates .venv first if it needs it.
.DEFAULT_GOAL := help
PYTHON ?= python3
ENV ?= local
BIN := .venv/bin

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: .venv/ready ## Create .venv with everything that is needed

.venv/ready: requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

deploy: setup ## Deploy to ENV (default: local, the embedded AWS, with examples/)
	$(BIN)/invoke deploy --env=$(ENV)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: lint ## Lint, types, and the tests of each part, on the embedded AWS
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses=4 --dist=worksteal --ignore=tests/e2e

e2e: setup ## Whole deployments, workflows and machines; with a Docker engine and Chromium, if they are there
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses=5 --dist=worksteal tests/e2e

mutants: setup ## Change the code in small ways and show the changes that no test notices; WHERE: files or folders
	$(BIN)/python -m tests.mutants $(WHERE)

soak: setup ## Kill 200 releases, each at a random instant
	KILLS=100 $(BIN)/pytest tests/e2e/test_soak.py

faults: setup ## Make every request of every command fail in every way, and write docs/faults.md
	$(BIN)/python -m tests.faults.write docs/faults.md

rehearsal: setup ## Run what docs/runbook.md rehearses, and write there what it prints
	$(BIN)/python -m tests.e2e.rehearsal docs/runbook.md

screenshot: setup ## Deploy examples/ once more, and write what Chromium shows to docs/application.png
	$(BIN)/python -m tests.e2e.screenshot docs/application.png

cast: setup ## Record a deployment of examples/ on a terminal in docs/deploy.cast, and a picture of it
	$(BIN)/python -m tests.e2e.cast docs/deploy.cast docs/deploy.svg

docs: setup ## Write docs/tasks/ and docs/settings.md from the tasks and the settings
	$(BIN)/python docs/generate.py

bench-startup: setup ## Measure how long the command line takes to start
	$(BIN)/python benchmarks/startup.py

bench-release: setup .local/peers/ready ## Measure a release beside other tools, and write benchmarks/README.md
	$(BIN)/python -m benchmarks.release_static --write

bench-deploy: setup .local/peers/ready ## Measure a whole deployment beside the old scripts' calls of aws and docker
	$(BIN)/python benchmarks/deploy.py

.local/peers/ready: benchmarks/requirements.txt
	$(PYTHON) -m venv .local/peers
	.local/peers/bin/pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/requirements.txt
	@touch $@

lock: ## Write the requirements*.txt again from their .in files
	$(PYTHON) -m venv .local/lock
	.local/lock/bin/pip install --quiet uv
	for name in requirements requirements-dev benchmarks/requirements; do .local/lock/bin/uv pip compile --quiet --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate $$name.in -o $$name.txt; done

audit: setup ## Ask PyPI for known vulnerabilities of everything that is pinned (needs the network)
	$(PYTHON) -m venv .local/audit
	.local/audit/bin/pip install --quiet pip-audit==2.10.1
	for name in requirements requirements-dev benchmarks/requirements; do \
	  .local/audit/bin/pip-audit --disable-pip --require-hashes --requirement $$name.txt || exit 1; done

clean: ## Remove what these commands made
	-test -x $(BIN)/invoke && $(BIN)/invoke local.down
	rm -rf .venv .local

.PHONY: help setup deploy lint test e2e mutants soak faults rehearsal screenshot cast docs bench-startup bench-release bench-deploy lock audit clean
