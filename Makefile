# make run     set up, run the experiment, end with results/<run>/report.html
# make check   set up, run the checks and the quick unit tests
# make test    set up, run every check and test
# make help    the rest
SHELL := /bin/bash
CONFIG ?= config/smoke.yaml
ENGINES ?= auto
ARGS ?=
SAMPLE := docs/sample/report.html
SAMPLED := llama-8b
export ENGINES
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup run simulate replay repack check test lint lock upgrade image doctor clean

help: ## This list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
	@echo "Variables: CONFIG=config/full.yaml  ENGINES=cpu|cuda  ARGS='--config dtype=bfloat16'"

setup: ## Make .venv and install what the locks pin (run and test do it too)
	@workflow/setup

run: setup ## Run the experiment of CONFIG (default config/smoke.yaml)
	@python -m kvlab doctor --quiet $(CONFIG)
	@snakemake --cores 1 --configfile $(CONFIG) $(ARGS)

# An environment that can already do it is left as it is: setting up without engines could take some away.
simulate: ## The paper's memory figures, simulated: half a minute, no engine, no GPU (config/paper.yaml)
	@python -c 'import babel, matplotlib, numpy, pydantic, scipy, snakemake, kvlab' 2>/dev/null || ENGINES=none workflow/setup
	@snakemake --cores 1 --configfile config/paper.yaml $(ARGS)
	@python -m kvlab simulated results/paper

replay: ## Recompute the committed runs from their raw logs and compare, byte for byte: no engine, no GPU
	@python -c 'import babel, matplotlib, papermill, pydantic, scipy, kvlab' 2>/dev/null || ENGINES=none workflow/setup
	@ls -d results/reference/*/ | xargs -n 1 -P 2 python -m kvlab replay
	@cmp -s results/replay/$(SAMPLED)/report.html $(SAMPLE) || echo "$(SAMPLE): not the page that this replay gives; make it anew: make repack"

repack: ## Make the committed runs' numbers and the sample page anew from the raw logs: after quantities or the page have changed
	@python -c 'import babel, matplotlib, papermill, pydantic, scipy, kvlab' 2>/dev/null || ENGINES=none workflow/setup
	@for run in results/reference/*/; do python -m kvlab repack "$$run" || exit 1; done
	@python -m kvlab replay results/reference/$(SAMPLED)
	@mkdir -p $(dir $(SAMPLE)) && cp results/replay/$(SAMPLED)/report.html $(SAMPLE)

check: ## Style, types and the quick unit tests: about a minute, no engine is started
	@{ command -v ruff && command -v mypy && command -v pytest; } >/dev/null || ENGINES=none workflow/setup --dev
	@tests/all --quick

test: ## Every check and test; what this machine can't run is named as SKIPPED
	@workflow/setup --dev
	@tests/all

lint: ## The checks without the tests: style, types, workflow, Dockerfile, shell
	@{ command -v ruff && command -v mypy && command -v snakefmt; } >/dev/null || ENGINES=none workflow/setup --dev
	@tests/lint

lock: ## Make docker/*.lock anew from docker/*.in (ARGS=--upgrade for the newest)
	@docker/lock $(ARGS)

upgrade: ## Try another vLLM in an environment of its own, and say what breaks (VLLM=newest, VARIANT=cpu|cuda)
	@docker/upgrade $(or $(VLLM),newest)

image: ## Build the container image, and a SIF for Apptainer (VARIANT=cpu|cuda)
	@docker/build

doctor: ## What this machine can run and what it lacks
	@python -c 'import psutil, pydantic, kvlab' 2>/dev/null || ENGINES=none workflow/setup
	@python -m kvlab doctor

clean: ## Remove the environment and caches; results stay
	rm -rf .venv .cache .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis
