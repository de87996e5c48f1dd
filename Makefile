# Every target sets up what it needs: a machine with Python 3.11 or newer and git is enough.

PYTHON ?= python3
BIN := .venv/bin
ifndef PORT
PORT := $(or $(MLFLOW_PORT),5000)
endif
# The commands print links to this port.
export MLFLOW_PORT := $(PORT)
SERVE_PORT ?= 5001
# Of the ports that need no root those that browsers refuse: https://fetch.spec.whatwg.org/#port-blocking
REFUSED := 1719 1720 1723 2049 3659 4045 4190 5060 5061 6000 6566 6665 6666 6667 6668 6669 6679 6697 10080
OPENS = $(if $(filter $(1),$(REFUSED)),echo 'Browsers refuse to open port $(1): pass $(2)=another.' >&2; exit 1,:)
FREE = $(BIN)/python -c 'import socket, sys; s = socket.socket(); s.settimeout(1); sys.exit(s.connect_ex(("127.0.0.1", $(1))) == 0 and "Port $(1) is taken: pass $(2)=another")'
# The editable install is a path on sys.path (compat): a folder of the package's name above this one cannot hide it then.
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --config-settings editable_mode=compat --editable
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Without bytecode each of the tests' many processes would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

# `make finetune seed=1` would otherwise train with seed 0 and say nothing. Options, unlike variables of make and of
# MLflow, have small letters.
$(foreach name,$(filter $(addsuffix %,a b c d e f g h i j k l m n o p q r s t u v w x y z),$(.VARIABLES)),\
	$(if $(findstring command,$(origin $(name))),$(error Options go into ARGS, as in: make finetune ARGS='--$(name) $($(name))')))

.PHONY: help setup store train finetune scratch stability sweep report verify promote embed ui serve bench bench-serving bench-startup bench-growth bench-peers test test-long test-clusters test-faults test-server test-ui test-lowest quick lint fix clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | column -t -s '|'

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tvae needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	@echo 'Installing into .venv: some minutes the first time.'
	$(INSTALL) '.[test]'
	touch $@

setup: store ## Make the environment in .venv, and the tracking store

store: .venv/ready ## Make the tracking store ready, before several `mlflow run` begin in it at once
	$(BIN)/python -m entry_points.store

train: .venv/ready ## Train a foundation: encoder and decoder
	$(BIN)/python -m entry_points.train $(ARGS)

finetune: .venv/ready ## The main job: learn the projection (ARGS='--curvature 0.5 --seed 3' for options)
	$(BIN)/python -m entry_points.finetune $(ARGS)

scratch: .venv/ready ## Both stages in one run, from random weights
	$(BIN)/python -m entry_points.scratch $(ARGS)

stability: .venv/ready ## The same configuration over 25 seeds, with statistics
	$(BIN)/python -m entry_points.stability $(ARGS)

sweep: .venv/ready ## The reference sweep's 55 experiments with three seeds each (ARGS='--grid FILE' for your own)
	$(BIN)/python -m entry_points.sweep $(ARGS)

report: .venv/ready ## What MLflow holds, as a page: ARGS='--run ID' for one sweep
	$(BIN)/python -m entry_points.report $(ARGS)

verify: .venv/ready ## Check the champion, or ARGS='--checkpoint ADDRESS'
	$(BIN)/python -m entry_points.verify $(ARGS)

promote: .venv/ready ## Put a verified checkpoint into the registry: ARGS='--checkpoint ADDRESS', or ARGS=--rollback
	$(BIN)/python -m entry_points.promote $(ARGS)

embed: .venv/ready ## Write all embeddings of the champion: ARGS='--out FOLDER'
	$(BIN)/python -m entry_points.embed $(ARGS)

ui: .venv/ready ## Open MLflow on what was run
	@$(call OPENS,$(PORT),PORT)
	@$(call FREE,$(PORT),PORT)
	@case "$$MLFLOW_TRACKING_URI" in http*) echo "Runs go to the server that MLFLOW_TRACKING_URI names: open that. Unset it for the local store." >&2; exit 1;; esac
	@echo 'All experiments: http://127.0.0.1:$(PORT)/#/experiments?workflowType=machine_learning'
	@echo 'Runs of make:    http://127.0.0.1:$(PORT)/#/experiments/1/runs?viewStateShareKey=tvae&workflowType=machine_learning'
	$(BIN)/mlflow ui --host 127.0.0.1 --port $(PORT)

serve: .venv/ready ## Serve the champion on http://127.0.0.1:5001 (SERVE_PORT=another)
	@$(call OPENS,$(SERVE_PORT),SERVE_PORT)
	@$(call FREE,$(SERVE_PORT),SERVE_PORT)
	@$(BIN)/python -m entry_points.store --champion
	@echo 'Ask it from another terminal:'
	@echo "  curl -s 127.0.0.1:$(SERVE_PORT)/invocations -H 'Content-Type: application/json' -d '{\"inputs\": [[5]]}'"
	$(BIN)/mlflow models serve -m models:/tvae@champion --env-manager local --host 127.0.0.1 --port $(SERVE_PORT) --workers 1

bench: .venv/ready ## What training many runs at once is worth; writes benchmarks/RESULTS.md
	$(BIN)/python benchmarks/training.py

bench-serving: .venv/ready ## What serving costs, beside a model that does nothing
	$(BIN)/python benchmarks/serving.py

bench-startup: .venv/ready ## What a command costs beside its training, in imports of torch and mlflow
	$(BIN)/python benchmarks/startup.py $(ARGS)

bench-growth: .venv/ready ## How time and memory grow with the space, beside gensim, which it installs; writes benchmarks/GROWTH.md
	$(INSTALL) '.[test,peers]'
	$(BIN)/python benchmarks/growth.py

bench-peers: .venv/ready ## The same operations through pythae and gensim, which it installs; writes benchmarks/PEERS.md
	$(INSTALL) '.[test,peers]'
	$(BIN)/python benchmarks/peers.py $(ARGS)

lint: .venv/ready ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint ## Style, types, and the tests of every part
	$(BIN)/pytest

test-long: .venv/ready ## The tests that take long: full trainings, probes of the embedding, servers, large spaces, more processes
	$(BIN)/pytest -m long

test-clusters: .venv/ready ## The tests of workers: loky, Dask and Ray, the last two of which they install
	$(INSTALL) '.[test,dask,ray]'
	$(BIN)/pytest -m cluster -n 0 tests/test_fanout.py

test-faults: .venv/ready ## The tests of killed processes, lost servers and full disks, as root
	$(BIN)/pytest -m fault

test-server: .venv/ready ## The tests on a team's server with PostgreSQL, as root; they install its driver
	$(INSTALL) '.[test,server]'
	$(BIN)/pytest -m server -n 0 tests/test_server.py

test-ui: .venv/ready ## The tests in a browser: the MLflow UI as a person sees it; needs Debian's chromium
	@command -v chromium >/dev/null || { echo 'These tests drive Chromium: apt-get install chromium.' >&2; exit 1; }
	$(INSTALL) '.[test,ui]'
	$(BIN)/pytest -m browser -n 0 tests/test_ui.py

# Space, ball, model, training and files: what imports no MLflow, starts no process and draws nothing.
QUICK := checkpoint_damage checkpoint_transfer checkpoint_writing configuration docs_math gates holdout metrics model \
	nearest neighbours objectives poincare sweeps ternary training

quick: .venv/ready ## The tests of the mathematics, the model and its training
	$(BIN)/pytest --dist worksteal -m 'not integration and not long' $(QUICK:%=tests/test_%.py)

test-lowest: ## The tests that start no command with the oldest versions that pyproject.toml allows, in an environment of their own
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
		| sed 's/>=/==/; s/,.*//' > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --constraint .venv-lowest/constraints.txt --editable '.[test]'
	.venv-lowest/bin/pytest -m 'not integration and not long and not cluster and not fault and not server and not browser'

fix: .venv/ready ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment and caches; runs stay
	rm -rf .venv .venv-lowest .mypy_cache .pytest_cache .ruff_cache build *.egg-info
