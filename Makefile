# What a contributor runs; `make` lists it.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# The first Python on the path that is new enough and really starts
PYTHON ?= $(firstword $(foreach one,python3 $(addprefix python3.,15 14 13 12 11) python,$(shell \
	$(one) -c '$(NEW_ENOUGH)' 2>/dev/null && echo $(one))))
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := proxmox_client formats server bridge
STAMP := $(VENV)/.installed
LOCKED := constraints.txt constraints-dev.txt
INSTALL = $(PYTHON) scripts/install.py $(VENV)
# On all cores, which pip can't, and without what no test and no command imports, half of all;
# some packages ship files that no Python compiles
UNUSED := /(tests|numpy|pandas|pip|setuptools|mypyc?|PyInstaller|_pyinstaller_hooks_contrib)/
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '$(UNUSED)' $(VENV)/lib || true
# In the order of tests/conftest.py; by default xdist ends with the files of few and long tests
SOAK_FAULTS := cluster,kill,freeze,stop,restart,crash,freeze-database,reload,clock,cluster
PYTEST := $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help run serve install dev lock format lint types imports test check docs contracts \
	coverage bench fuzz chaos soak conformance bridge mcpb wheels deb clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: $(STAMP) ## The whole product on demo clusters, at http://127.0.0.1:8811
	@$(BIN)/pvemcp run --demo-if-empty

serve: $(STAMP) ## The server alone, without demo clusters
	@$(BIN)/pvemcp serve

install: $(STAMP) ## .venv with the four packages

$(STAMP): constraints.txt $(PACKAGES:%=packages/%/pyproject.toml)
	@$(or $(PYTHON),false) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "pvemcp needs Python 3.11 or newer; $(or $(PYTHON),python3) is" \
		"$$($(or $(PYTHON),python3) -V 2>/dev/null || echo missing). Install one," \
		"or name it: make PYTHON=/path/to/python3"; exit 1; }
	@$(INSTALL) -- --require-hashes -r constraints.txt \
		-- --no-deps --no-build-isolation $(PACKAGES:%=-e packages/%)
	@$(COMPILE)
	@touch $@

dev: $(VENV)/.dev $(VENV)/.npm ## The same with everything for development

$(VENV)/.dev: $(STAMP) constraints-dev.txt
	@$(INSTALL) -- --require-hashes -r constraints-dev.txt
	@$(COMPILE)
	@touch $@

$(VENV)/.npm: tests/npm/package.json
	@mkdir -p $(VENV)
	@if command -v npm >/dev/null; then $(PYTHON) scripts/node_tools.py >/dev/null; \
		else echo "No npm: tests that compare with its packages will skip."; fi
	@touch $@

lock: dev ## Renew the pinned versions and hashes
	@scripts/lock.sh

format: dev ## One style
	@$(BIN)/ruff check --quiet --fix-only . && $(BIN)/ruff format --quiet .

lint: dev ## ruff, and the word list
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/python scripts/check_language.py

types: dev ## mypy, strict
	@$(BIN)/mypy

imports: dev ## The layers hold
	@$(BIN)/lint-imports

test: dev ## All tests
	@$(PYTEST)

coverage: dev ## All tests, and which lines of the test process they reach
	@$(PYTEST) --cov --cov-report=term:skip-covered

check: lint types imports test ## What a change passes before it is merged

docs: dev ## Renew the generated pages
	@for page in scripts/make_docs_*.py; do $(BIN)/python $$page; done

contracts: dev ## Renew the tool contracts
	@$(BIN)/python scripts/make_contracts.py

conformance: dev ## The official MCP conformance suite, both eras, server and bridge
	@$(BIN)/python scripts/conformance.py && $(BIN)/python scripts/conformance_bridge.py

bench: dev ## All benchmarks, side by side with their peers
	@for one in benchmarks/*.py; do echo "== $$one"; $(BIN)/python $$one || exit 1; done

fuzz: dev ## A million random queries against the oracle
	@$(BIN)/python scripts/fuzz_query.py

chaos: dev ## Parts of a fleet fail while clients call; needs PostgreSQL, HAProxy, nginx, libfaketime
	@$(BIN)/python -m pytest -m chaos tests/e2e/test_chaos.py

soak: dev ## The long soaks of bridge and client, and half an hour of faults in a fleet
	@$(BIN)/python benchmarks/soak_bridge.py && $(BIN)/python benchmarks/soak_client.py
	@$(BIN)/python benchmarks/soak_fleet.py --minutes 30 --faults $(SOAK_FAULTS)

bridge: dev ## The bridge as a binary for this machine, tested, in dist/
	@$(BIN)/python scripts/build_bridge.py && $(BIN)/python scripts/try_bridge.py

mcpb: bridge ## The bridge as a Claude Desktop extension
	@$(BIN)/python scripts/build_mcpb.py

# Without the hook of packages/server, which would name the folders of this checkout
wheels: $(STAMP) ## The four packages as wheels, in dist/
	@HATCH_BUILD_NO_HOOKS=true $(BIN)/python -m pip wheel --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation -w dist $(PACKAGES:%=./packages/%)

deb: ## The Debian package for this machine's Debian, in dist/
	@scripts/build_deb.sh

clean: ## Remove what was built; keeps ./var
	@rm -rf $(VENV) build dist .coverage* htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis
