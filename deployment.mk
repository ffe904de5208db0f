# The deployment commands in an application's repository. Each target creates .venv first if it needs it.
ENV ?= local
PYTHON ?= python3

.venv/deployment: requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

deploy: .venv/deployment ## Deploy to ENV (default: local, the embedded AWS, with examples/)
	.venv/bin/invoke deploy --env=$(ENV)

test test-deployment: .venv/deployment ## Read the settings, and show what a deployment to each environment would do
	names=`.venv/bin/python -c 'from scripts.frame import settings; print(*settings.names())'` || exit 1; \
	for name in $$names; do \
	  .venv/bin/invoke deploy --env=$$name --tag=test --no-build --dry-run || exit 1; done

.PHONY: deploy test test-deployment
