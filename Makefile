# make demo | test | lint | bench | docs      Any of them makes .venv first, once.
# make coverage                              Real models; with an environment of its own, .venv-coverage.
#
#   make demo ARGS="--fast --scheme monomial"
#   make test ARGS="tests/unit -k codec" JOBS=0
#   make bench ARGS="--fast"

PYTHON ?= python3
ARGS ?=
# Processes that tests run in. 0: in pytest's own, which starts sooner, and is what a debugger (--pdb) wants.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint bench docs coverage clean

demo: $(STAMP)
	$(BIN)/tempo demo $(ARGS)

# A file's tests stay in one process, for what they share; files go in their order: the long ones are first.
test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The two suites that say most in least time: under two minutes, and under ten.
bench: $(STAMP)
	$(BIN)/tempo bench kernels $(ARGS)
	$(BIN)/tempo bench layers $(ARGS)

# Links resolve, the commands that README and docs show exist, drawings are new; then the site, in site/.
docs: $(STAMP)
	$(BIN)/python -m pytest tests/unit/cli/test_cli_documents.py tests/unit/test_drawings.py $(ARGS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Every family of timm and architecture of transformers, protected and plain: about an hour on two cores. What was
# judged is kept, so that a run cut short goes on; remove the results for a fresh one. Then the page.
# timm imports torchvision, of which there is no build for every torch: it comes without its dependencies, and
# benchmarks/coverage declares the operators that it misses.
COVERAGE := .venv-coverage
COVERAGE_STAMP := $(COVERAGE)/.installed

coverage: $(COVERAGE_STAMP)
	$(COVERAGE)/bin/python -m benchmarks.coverage run $(ARGS)
	$(if $(ARGS),@echo 'docs/coverage.md is left as it is: ARGS names a part of the run',$(COVERAGE)/bin/python -m benchmarks.coverage page)

$(COVERAGE_STAMP): pyproject.toml
	[ -x $(COVERAGE)/bin/python ] || $(PYTHON) -m venv $(COVERAGE)
	$(COVERAGE)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(COVERAGE)/bin/python -m pip install --quiet --disable-pip-version-check -e . transformers==5.23.0 pillow
	$(COVERAGE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps torchvision==0.28.0 timm==1.0.31
	@touch $@

# torch first and pinned: left to itself, pip would take a newer one with gigabytes of CUDA packages.
# Native passes are built on the way where there is a C++ compiler (tempo doctor).
$(STAMP): pyproject.toml setup.py $(wildcard tempo/kernels/cpp/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Tempo needs Python 3.11 or newer; say which: make PYTHON=python3.12" >&2; exit 2; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "no venv module here; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(COVERAGE) .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-results build *.egg-info tempo/kernels/_passes*.so
