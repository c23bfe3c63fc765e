# Every target sets up what it needs; `make` alone lists them. A bare machine needs Python 3.11 or newer and make.

.NOTPARALLEL:
.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin

# The first Python that is new enough and can make a virtual environment; `make PYTHON=... setup` chooses another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

# A stamp carries the checksum of what was installed, so that a repeated make is instant and a changed pin is not missed.
checksum = $(shell cat $(1) pyproject.toml | cksum | cut -d' ' -f1)
RUN_STAMP := .venv/.stamp-run-$(call checksum,requirements/run.txt)
DEV_STAMP := .venv/.stamp-dev-$(call checksum,requirements/dev.txt)
DYNAMO_STAMP := .venv-dynamo/.stamp-$(shell cksum requirements/dynamo.txt | cut -d' ' -f1)
SGLANG_ROUTER_STAMP := .venv-sglang-router/.stamp-$(shell cksum requirements/sglang-router.txt | cut -d' ' -f1)
SMG_STAMP := .venv-smg/.stamp-$(shell cksum requirements/smg.txt | cut -d' ' -f1)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

COMPILE := $(BIN)/uv --no-config pip compile --quiet --upgrade --generate-hashes --universal --fork-strategy fewest \
	--python-version 3.11 --no-emit-index-url --no-annotate --custom-compile-command 'make lock' \
	pyproject.toml requirements/build.in --extra plot
COMPILE_DYNAMO := $(subst pyproject.toml requirements/build.in --extra plot,requirements/dynamo.in --override requirements/dynamo.leave,$(COMPILE))
compile_alone = $(subst pyproject.toml requirements/build.in --extra plot,requirements/$(1).in,$(COMPILE)) --output-file requirements/$(1).txt

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(DEV_STAMP) ## make .venv, with everything for work on RAPID

.PHONY: dynamo
dynamo: $(DYNAMO_STAMP) ## make .venv-dynamo: NVIDIA Dynamo, for its tests and bench.dynamo_loop (326 MB)

.PHONY: routers
routers: $(SGLANG_ROUTER_STAMP) $(SMG_STAMP) ## make .venv-sglang-router and .venv-smg, for the tests of attach (300 MB)

.PHONY: demo
demo: $(RUN_STAMP) ## two simulated hosts on one real trace, side by side (ARGS="--seconds 30")
	@$(BIN)/rapidctl demo $(ARGS)

# Four at a time: they mostly wait.
KILLS := tests/kills tests/e2e/test_engine_kills.py

.PHONY: test
test: apt lint dynamo routers ## everything that CI asks for: lint, then all tests
	@status=0; \
	$(BIN)/python -m pytest -q -n 2 -m 'not e2e' || status=1; \
	$(BIN)/python -m pytest -q -n 4 -m e2e $(KILLS) || status=1; \
	$(BIN)/python -m pytest -q -n 4 --dist loadscope -m e2e $(KILLS:%=--ignore=%) || status=1; \
	exit $$status

.PHONY: test-vllm
test-vllm: routers ## real vLLM on the CPU: does KV move after a change of roles? (3.5 GB, 8 GB of memory, minutes)
	@PYTHON=$(PYTHON) scripts/vllm_cpu.sh
	@$(BIN)/python -m pytest -q -n 0 tests/engines/vllm_real.py

.PHONY: lint
lint: setup ## ruff, mypy --strict and buf lint
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check || { echo 'some files are not formatted: run .venv/bin/ruff format' >&2; exit 1; }
	@$(BIN)/mypy --strict
	@$(BIN)/buf lint proto

.PHONY: precommit
precommit: lint ## what to run before a commit: lint and the unit tests
	@$(BIN)/python -m pytest -q -n 2 -m 'not e2e'

.PHONY: proto
proto: setup ## make rapid/v1 anew from proto/
	@$(BIN)/python scripts/generate_stubs.py .

.PHONY: lock
lock: setup ## choose newer versions and pin them, with hashes, in requirements/
	@$(COMPILE) --output-file requirements/run.txt
	@$(COMPILE) --extra dev --constraint requirements/run.txt --output-file requirements/dev.txt
	@$(COMPILE_DYNAMO) --output-file requirements/dynamo.txt
	@$(call compile_alone,sglang-router)
	@$(call compile_alone,smg)

.PHONY: bench
bench: setup ## speed and memory, every figure of README.md (searches and evaluations are run by their own names)
	@for name in control_tick replay policy sim demo engines facility rapidd; do echo "== bench.$$name"; $(BIN)/python -m bench.$$name || exit 1; done

.PHONY: evaluation
evaluation: setup ## docs/evaluation.md: every policy on every trace, half an hour (ARGS=--quick)
	@$(BIN)/python -m bench.evaluation $(ARGS)

.PHONY: fake-nvml
fake-nvml: setup ## the real rapidd on fake NVIDIA GPUs, whose driver a text file scripts (ARGS=--help)
	@$(BIN)/python -m tools.fake_gpu $(ARGS)

.PHONY: apt
apt: ## the Debian packages that tests use, when root
	@scripts/debian_packages.sh

.PHONY: clean
clean: ## remove .venv and everything else that was made here
	@rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist demo-out *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN_STAMP):
	$(call install,requirements/run.txt)
	@touch $@

# What development needs includes what running needs, so this one stamp stands for both.
$(DEV_STAMP):
	$(call install,requirements/dev.txt)
	@touch $@ $(RUN_STAMP)

# An environment of its own: what engines pin is not what we need. --no-deps, as requirements/dynamo.leave says.
$(DYNAMO_STAMP): requirements/dynamo.txt | $(DEV_STAMP)
	@echo 'setting up .venv-dynamo ...'
	@.venv-dynamo/bin/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m venv --clear .venv-dynamo
	@.venv-dynamo/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes -r $<
	@rm -f .venv-dynamo/.stamp-*
	@touch $@

# The two routers do not share one: each brings a command named smg, and the second would replace that of the first.
$(SGLANG_ROUTER_STAMP): requirements/sglang-router.txt | $(DEV_STAMP)
	$(call install_alone,.venv-sglang-router,$<)

$(SMG_STAMP): requirements/smg.txt | $(DEV_STAMP)
	$(call install_alone,.venv-smg,$<)

define install_alone
	@echo 'setting up $(1) ...'
	@$(1)/bin/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m venv --clear $(1)
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r $(2)
	@rm -f $(1)/.stamp-*
	@touch $@
endef

define install
	@test -n "$(PYTHON)" || { echo 'no Python 3.11 or newer with venv found: install one (Debian: python3-venv) or say make PYTHON=...' >&2; exit 1; }
	@echo 'setting up .venv from $(1) ...'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PIP_INSTALL) --require-hashes -r $(1)
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@rm -f .venv/.stamp-*
endef
