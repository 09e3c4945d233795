# `make help` lists the verbs. Each sets up what it needs by itself (tools/setup.sh).

PYTHON ?= python3
export PYTHON
# Without bytecode, each worker and each `keysync` that a test starts would compile its modules again.
unexport PYTHONDONTWRITEBYTECODE
PY := .venv/bin/python
# Most tests wait for something, so more of them than there are processors run side by side.
WORKERS ?= 4
PYTEST = $(PY) -m pytest -q -rs -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help demo sandbox test test-fast attack systems check fuzz bench soak fleet pythons dist audit lock clean ready ready-tests ready-systems ready-venv ready-dist ready-audit

help: ## show this list
	@echo 'usage: make VERB [PYTHON=python3.12]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

demo: ready ## add, edit and delete a key against a local console and a real sshd, in the terminal
	@$(PY) -m sandbox.demo

sandbox: ready ## the Keys page, an instance and the agent; ARGS="--directory DIR" keeps the account
	@$(PY) -m sandbox $(ARGS)

test: ready-tests ## the tests; make test ARGS="tests/core -k blob" runs some of them
	@$(PYTEST) $(ARGS)

test-fast: ready ## for the edit loop, under a minute: rules, commands, the fast part of the rest
	@$(PYTEST) -m 'not attack and not slow and not systems' --hypothesis-profile=fast \
	    tests/core tests/providers tests/cli tests/service tests/adapters tests/network tests/test_*.py $(ARGS)

attack: ready-tests ## the tests that attack keysync, with every sweep in full; test takes samples of some
	@$(PYTEST) -m attack --full-sweep $(ARGS)

systems: ready-systems ## the tests on Debian 13 and sid (OpenSSH 10.6), with real logins; makes both file systems once
	@$(PY) -m pytest -q -rs -m systems tests/systems $(ARGS)

check: ready-tests ## format, lint, types, tests, and 100 % of the branches of agent/core and agent/providers
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PYTEST) --cov --cov-report= tests/core tests/providers
	$(PY) -m coverage report --show-missing --fail-under=100
	$(PYTEST) --ignore=tests/core --ignore=tests/providers

fuzz: ready-venv ## fuzz every parser of untrusted bytes for ten minutes; ARGS="--seconds 60 --target blob"
	@$(PY) -m fuzz $(ARGS)

bench: ready-venv ## what a sync costs, measured from an installed wheel
	@rm -rf dist && mkdir dist
	@$(PY) -m build --wheel --no-isolation --outdir dist . >dist/build.log 2>&1 || \
	    { cat dist/build.log; exit 1; }
	@$(PY) -m bench

soak: ready-venv ## run the daemon for ten minutes against a console with every fault; ARGS="--minutes 1"
	@$(PY) -m bench.soak $(ARGS)

fleet: ready-venv ## 200 simulated instances that poll the local console every second, for a minute
	@$(PY) -m bench.fleet $(ARGS)

pythons: ready ## the unit and integration tests with every Python from 3.10 to 3.13 that is here
	@tools/pythons.sh $(ARGS)

dist: ready-dist ## wheel, sdist, bill of materials and checksums, into dist/
	@tools/dist.sh

audit: ready-audit ## known vulnerabilities of the locked libraries; exits non-zero also when the source is unreachable
	@.venv-audit/bin/python tools/audit.py $(ARGS)

lock: ## write requirements/*.lock from pyproject.toml; UPGRADE=1 takes the newest versions
	@UPGRADE='$(UPGRADE)' tools/lock.sh

clean: ## remove everything that these verbs made in this folder
	@rm -rf .venv .venv-audit .venv-clients .venv-lock .wheels .wheels.new dist build .coverage .coverage.* htmlcov \
	    .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz .artefacts
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

ready:
	@tools/setup.sh ssh venv

ready-tests:
	@tools/setup.sh ssh faults browser systemd venv audit clients wheels

ready-systems:
	@tools/setup.sh ssh systemd venv

ready-venv:
	@tools/setup.sh venv

ready-dist:
	@tools/setup.sh venv audit

ready-audit:
	@tools/setup.sh audit
