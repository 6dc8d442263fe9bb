# Four words for everyone: demo, test, check, bench-<area>. Each sets up what it needs in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Slow first wheels are worth waiting for; set PIP_ARGS for a mirror or another torch index.
PIP     := $(BIN)/python -m pip --disable-pip-version-check $(PIP_ARGS)
PORTIONS := protos parallel checkpoint controller agent

# Thousands of processes start in the tests: each would compile our modules again where Python may not keep them.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test test-system test-gpu check sizes coverage mutants chaos bench bench-recovery bench-overhead bench-control bench-checkpoint bench-checkpoint-gpu bench-data profile protos docs corpus clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with everything in it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; set PYTHON=<a newer one>" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "error: $(PYTHON) lacks the venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV) (once, about two minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet -c constraints.txt -e '.[agent,data,demo,bench,dev]'
	@touch $@

demo: install ## The main job: train on real text, lose a worker and an agent, go on, finish
	@$(BIN)/trainctl demo $(if $(CORPUS),--corpus '$(CORPUS)') $(DEMO_ARGS)

# NO_COMPILER: a test that needs one fails here even where there is one; it belongs to tests/system.
NO_COMPILER := CXX=/no/compiler/in/make/test
# What the main path does with real processes; all others of their kind take a quarter of an hour, and are in test-system.
MAIN_PATH := tests/e2e/test_main_path.py tests/multiproc/test_session_recovery.py
OF_PROCESSES := tests/e2e tests/multiproc tests/etcd_store
test: install ## What a change has to pass before anybody looks at it, in six minutes: needs nothing but Python
	$(NO_COMPILER) $(BIN)/pytest -n 2 --ignore tests/system --ignore tests/gpu $(OF_PROCESSES:%=--ignore %) $(PYTEST_ARGS)
	$(NO_COMPILER) tests/in_memory.sh $(BIN)/pytest -n 2 $(MAIN_PATH) $(PYTEST_ARGS)

# The longest one first: the others fill the second core meanwhile.
SYSTEM_TESTS := tests/system/test_demo.py $(filter-out tests/system/test_demo.py,$(wildcard tests/system/test_*.py))
test-system: install ## All others: of processes, and of whole environments: no torch, torch.compile, Debian's etcd (installs g++ and etcd if root)
	$(NO_COMPILER) tests/in_memory.sh $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(MAIN_PATH:%=--ignore %) $(OF_PROCESSES) $(PYTEST_ARGS)
	CXX="$$(tests/system/compiler.sh)" && export CXX && \
	  $(BIN)/pytest $(SYSTEM_TESTS) -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)
	TRAINCTL_ETCD_BIN="$$(tests/system/etcd.sh)" && export TRAINCTL_ETCD_BIN && \
	  $(BIN)/pytest -n 2 --dist loadfile tests/etcd_store/test_etcd_store.py tests/etcd_store/test_etcd_faults.py $(PYTEST_ARGS)

test-gpu: install ## The main path on CUDA devices; the tests of NCCL need two (docs/unverified.md)
	$(BIN)/pytest tests/gpu $(PYTEST_ARGS)

check: install ## Lint, types, contracts, freshness of everything generated
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@echo "types: mypy and pyright, both strict"; $(BIN)/mypy & mypy=$$!; $(BIN)/basedpyright --pythonpath $(BIN)/python; pyright=$$?; wait $$mypy && exit $$pyright
	$(BIN)/pytest tests/architecture -q

sizes: install ## What the code measures: files, functions, types, docstrings, duplicates (budgets: tests/architecture/budgets.toml)
	@PYTHONPATH=tests $(BIN)/python -m architecture.sizes

# COVERED=tests measures the tests of processes, too, which take their time; workers that are killed tell nothing.
COVERED ?= tests/unit
coverage: install ## Lines and branches that the unit tests pass: of the pure core, which has a budget, and overall
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(COVERED) -n 2 -q $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage json --quiet -o .coverage.json
	@PYTHONPATH=tests $(BIN)/python -m architecture.coverage_figures .coverage.json

# What was found is kept in .mutants: a run that ended early (--seconds 480) is gone on with. Another --seed tries others.
mutants: install ## Changes of decisions of the pure core that its tests notice: a sample, about 20 minutes; has a budget
	@PYTHONPATH=tests $(BIN)/python -m mutation $(MUTANTS_ARGS)

chaos: install ## Random job files and calls, then random faults and outages of the whole system, for half an hour
	TRAINCTL_FUZZ_EXAMPLES=$${TRAINCTL_FUZZ_EXAMPLES:-2000} $(BIN)/pytest $$(grep -rlE '^(import|from) hypothesis' --include='test_*.py' tests/unit) --timeout 3600
	PYTHONPATH=tests $(BIN)/python -m simulation --seeds $${TRAINCTL_SIMULATION_SEEDS:-0-999}
	tests/in_memory.sh $(BIN)/pytest tests/unit tests/e2e tests/multiproc -m chaos --timeout 900 $(PYTEST_ARGS)

bench: bench-recovery bench-overhead bench-control bench-checkpoint bench-data ## All benchmarks

bench-recovery: install ## Seconds from a kill to the first new committed step: here, under torchrun, under torchft
	$(BIN)/python tests/benchmarks/recovery.py $(BENCH_ARGS)

bench-overhead: install ## Tokens per second here and in a plain DDP loop
	$(BIN)/python tests/benchmarks/overhead.py $(BENCH_ARGS)

bench-control: install ## Seconds from a submission to RUNNING and of commands; what a controller costs with 200 agents
	$(BIN)/python tests/benchmarks/control.py $(BENCH_ARGS)

bench-checkpoint: install ## Seconds to save and load against torch's distributed checkpoint and the disk itself
	$(BIN)/python tests/benchmarks/checkpoint.py $(BENCH_ARGS)

bench-checkpoint-gpu: install ## Stall of a snapshot of a billion parameters after every step, on a CUDA device (needs one)
	$(BIN)/python tests/benchmarks/checkpoint_gpu.py $(BENCH_ARGS)

profile: install ## Where the time of a step, a save, a start and a recovery goes
	$(BIN)/python tests/benchmarks/profiles.py $(BENCH_ARGS)

bench-data: install ## Tokens per second of the loader, every format, against reading the same bytes plainly
	$(BIN)/python tests/benchmarks/data.py $(BENCH_ARGS)

protos: install ## Regenerate the stubs from the schema
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=protos --grpc_python_out=protos \
	  --mypy_out=protos --mypy_grpc_out=protos protos/trainctl/protos/*/*.proto

docs: install ## Rewrite the pages of docs/reference that are made from the code
	PYTHONPATH=tests $(BIN)/python tests/architecture/reference.py
	$(BIN)/python -m trainctl.cli.grammar.reference docs/cli.md

corpus: install ## Rewrite what users are told about the wrong job files of tests/corpus; shows what changed
	PYTHONPATH=tests $(BIN)/python tests/corpus/wrong_files.py

clean: ## Remove what the other targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* .mutants demo-run
