# Every target sets up what it needs, from nothing.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export KAFKA_ARCHIVE := $(CURDIR)/.cache/kafka/kafka_2.13-4.3.0.tgz

# A terminal gets colour and a progress bar; a pipe gets neither.
TERMINAL := $(shell test -t 0 && test -t 1 && echo --interactive --tty || echo --env COLUMNS=120)

# Integration tests mostly wait; each process has brokers of its own, and runs whole files.
IN_PARALLEL := --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: help
help:  ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: up
up: tools-docker archive  ## deploy the whole system on four containers, then send 1,000 tasks through it
	ansible-playbook -i local playbooks/local_hosts.yml site.yml
	docker exec $(TERMINAL) kafka1 bash -lc 'scheduler smoke --tasks 1000'
	@echo "The system is running. Look around with 'docker exec -it kafka1 bash -l'; 'make down' removes it."

.PHONY: down
down: tools  ## remove the containers and their network (kept, as caches: .venv, .cache, the image)
	@if docker info >/dev/null 2>&1; then \
	  ansible-playbook -i local playbooks/local_destroy.yml; scripts/dockerd.sh stop; \
	else echo "No Docker daemon answers here, so there is nothing to remove."; fi

.PHONY: demo
demo: archive  ## the same system as processes of yours, without Docker or root; ^C removes it
	scheduler dev --demo

.PHONY: test
test: lint unit integration molecule  ## the whole test suite

.PHONY: test-fast
test-fast: lint unit archive  ## the test suite without Molecule and without what takes long
	@scripts/bootstrap.sh servers
	pytest app/tests/integration $(IN_PARALLEL) -m 'not slow'

.PHONY: lint
lint: tools  ## ruff, mypy, import-linter, yamllint, ansible-lint, shellcheck
	scripts/lint.sh

.PHONY: unit
unit: tools  ## unit tests
	pytest app/tests/unit

.PHONY: integration
integration: archive  ## integration tests, on a real broker that they start
	@scripts/bootstrap.sh servers rivals
	pytest app/tests/integration $(IN_PARALLEL)

.PHONY: chaos
chaos: archive  ## 15 minutes of random faults under load; CHAOS_SEED replays a run, CHAOS_SECONDS shortens it
	PYTHONPATH=$(CURDIR)/app python -m tests.chaos

.PHONY: chaos-compare
chaos-compare: archive  ## the same kills for this transport, kombu's confluentkafka, Redis and RabbitMQ
	@scripts/bootstrap.sh servers rivals
	PYTHONPATH=$(CURDIR)/app python -m tests.chaos.compare

.PHONY: bench
bench: archive  ## this transport beside Redis, RabbitMQ and confluentkafka, into docs/benchmarks.md; BENCH=short shows that it works
	@scripts/bootstrap.sh servers rivals
	PYTHONPATH=$(CURDIR)/app python -m tests.bench

.PHONY: molecule
molecule: tools-docker archive  ## Molecule's default scenario, on containers of its own
	molecule test --scenario-name default --no-command-borders

.PHONY: lock
lock: tools  ## make the lock files again from requirements.in
	cd app && uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	  --custom-compile-command 'make lock' requirements.in --output-file requirements.lock
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	  --custom-compile-command 'make lock' requirements.in --output-file requirements.lock

.PHONY: clean
clean: down  ## down, and remove the caches too
	-docker image rm --force bare-host:bookworm
	rm -rf .venv .cache

.PHONY: tools
tools:  ## make .venv: Ansible, the linters, the app, each pinned
	@scripts/bootstrap.sh tools

.PHONY: tools-docker
tools-docker:
	@scripts/bootstrap.sh tools java docker
	@scripts/dockerd.sh
	@scripts/host_image.sh

.PHONY: archive
archive:  ## build the Kafka archive from Maven Central
	@scripts/bootstrap.sh tools java
	@python3 files/kafka/build_archive.py --output $(KAFKA_ARCHIVE)
