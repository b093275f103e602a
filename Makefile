# Each target works alone on a fresh clone: the first run sets up a virtual environment, later ones find it.
# Minutes are those of two cores, once set up; setting up takes two minutes more.
#   make demo       1  a story from the model in the package, by three party processes on this machine
#   make test      10  the tests (ARGS="-k name" and so on for pytest)
#   make test-slow 60  the long tests alone (ARGS="-k name" for some of them; PUMA_TEST_DATA=DIR for real checkpoints)
#   make mutants   10  more than two hundred changes that break secrecy and keep answers right: a test must notice each
#                      (ARGS=--quick: twenty of them, a minute)
#   make check      1  style, types, and which part of the code may import which
#   make wheel      1  build the wheel, install it in the place of the source, and import it from elsewhere
#   make bench     90  every published table and plot; wants the machine for itself (ARGS="--only models")
#   make docs       1  print the table of costs into docs/protocol.md
#   make format     1  let ruff rewrite what it can
#   make clean      1  remove the environment and what tools left behind

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Processes among which `make test` divides the files of tests; 0 for none but pytest's own, as --pdb wants it.
WORKERS ?= 2

# PyPI's torch for Linux brings gigabytes of CUDA, PyTorch's own index has a CPU build, which pip prefers.
# A pip that is already told where to look (a mirror, wheels on disk) is left alone. `make TORCH_INDEX= demo`
# takes whatever torch pip finds by itself.
TORCH_INDEX ?= $(if $(shell $(BIN)/pip config list 2>/dev/null | grep -E 'index-url|find-links'),,$(CPU_INDEX))
CPU_INDEX := https://download.pytorch.org/whl/cpu

BIN := $(VENV)/bin
INSTALL = $(BIN)/pip install -q -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e
WANTED := pyproject.toml constraints.txt Makefile

.PHONY: demo test test-slow mutants check wheel bench docs format clean

demo: $(VENV)/.puma
	$(BIN)/puma demo

test: $(VENV)/.test
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(VENV)/.test
	$(BIN)/pytest -m slow $(ARGS)

mutants: $(VENV)/.test
	$(BIN)/python -m tests.mutants $(ARGS)

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# Afterwards the environment holds the wheel; the next `make` that needs the source puts that back.
wheel: $(VENV)/.puma
	rm -rf $(VENV)/dist
	$(BIN)/pip wheel -q --no-deps -w $(VENV)/dist .
	$(BIN)/pip install -q --no-deps --force-reinstall $(VENV)/dist/*.whl
	rm -f $(VENV)/.puma $(VENV)/.test $(VENV)/.check $(VENV)/.bench
	cd / && $(abspath $(BIN))/python -c "import puma, puma.local.cluster as c; \
		assert 'site-packages' in c.__file__, c.__file__; print('puma', puma.__version__, 'from', c.__file__)"
	cd / && $(abspath $(BIN))/puma generate "Once upon a time" --tokens 2 --compare

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(VENV)/.puma
	$(BIN)/python -m puma.measure.cost_table > $(VENV)/costs.md
	sed -i -e '/<!-- cost table -->/,/<!-- .cost table -->/{//!d}' \
		-e '/<!-- cost table -->/r $(VENV)/costs.md' docs/protocol.md

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .hypothesis .ruff_cache .import_linter_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'puma needs Python 3.11 or later: make PYTHON=/path/to/python3.11 ...'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.puma: $(WANTED) | $(BIN)/pip
	@echo 'installing into $(VENV), once; torch takes a while'
	$(INSTALL) .
	@touch $@

$(VENV)/.test: $(WANTED) | $(BIN)/pip
	@echo 'installing into $(VENV), once; torch takes a while'
	$(INSTALL) '.[test]'
	@touch $@ $(VENV)/.puma

$(VENV)/.bench: $(WANTED) | $(BIN)/pip
	@echo 'installing into $(VENV), once; torch takes a while'
	$(INSTALL) '.[bench]'
	@touch $@ $(VENV)/.puma

$(VENV)/.check: $(WANTED) | $(BIN)/pip
	@echo 'installing into $(VENV), once; torch takes a while'
	$(INSTALL) '.[check]'
	@touch $@ $(VENV)/.puma
