# Every target makes the environment it needs; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
TORCH ?= $(or $(shell cat $(VENV)/.torch 2>/dev/null),default)
RESULTS ?= results
DATA ?= data
RECIPE ?= local
TRAIN_SHARDS ?=
OFFLINE ?=
SWEEP ?=
CELL ?=
FOLLOW ?=
FAILED ?=
SEEDS ?= 0:200
WHERE ?=
LIMIT ?=
REFRESH ?=
UNTIL ?=
AUTOSCALE ?=
JOIN ?=
NOW ?=
LEASES ?=
CHECK ?=
SCRIPT ?=
NAME ?=
ACTIVATION ?=
OUT ?=
FORCE ?=
SUBMIT ?=
STACKS ?=

PY := $(VENV)/bin/python
# Where PYTHON is a virtual environment itself, the new one is shown its packages by a path file.
SITE = -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
SEE_TORCH = "$(PYTHON)" $(SITE) > "$$($(PY) $(SITE))/system.pth"
# An interpreter that is asked for by name and is not the environment's makes the environment anew.
WHICH = import sys; print(sys._base_executable, sys.version_info[:3])
ifneq ($(filter command environment,$(firstword $(origin PYTHON))),)
ASKED := $(shell "$(PYTHON)" -c '$(WHICH)' 2>/dev/null)
ifeq ($(ASKED),)
$(error PYTHON=$(PYTHON): no Python 3.11 or newer runs under that name)
endif
ifneq ($(ASKED),$(shell cat $(VENV)/.python 2>/dev/null))
$(shell rm -f $(VENV)/.ready-*; [ ! -e $(VENV)/.torch ] || : > $(VENV)/.torch)
endif
endif
READY := $(VENV)/.ready-$(TORCH)
SWEEP_ARGS = --results "$(RESULTS)" --data "$(DATA)" $(if $(SWEEP),--sweep "$(SWEEP)")
# A condition has quotes of its own: it goes through the environment, past the shell's.
export WHERE
SELECT_ARGS = $(if $(WHERE),--where "$$WHERE") $(if $(LIMIT),--limit "$(LIMIT)")
PLAN_ARGS = $(SELECT_ARGS) $(if $(UNTIL),--until "$(UNTIL)") $(if $(AUTOSCALE),--autoscale "$(AUTOSCALE)") $(if $(REFRESH),--refresh) $(if $(JOIN),--join)
CHECK_ARGS = $(if $(CHECK),--check)
PYTEST_ARGS ?= --numprocesses 2 --durations 10
SWEEP_NAME = $$($(PY) -m sweep which $(SWEEP_ARGS))

.PHONY: help setup sweep stop plan status watch collect show logs rerun draft doctor figures summary report power submission notebooks data test test-slow test-cluster test-stacks check format bench bench-gpu bench-driver gpu-check gpu-bundle calibration soak mutants

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: SWEEP=name-or-path RESULTS=dir DATA=dir CELL=prefix FOLLOW=1 FAILED=1 WHERE='slope >= 0.3' LIMIT=n UNTIL=bpb AUTOSCALE=n REFRESH=1 JOIN=1 NOW=1 LEASES=n RECIPE=name SCRIPT=path NAME=recipe ACTIVATION=key OUT=dir TRAIN_SHARDS=n OFFLINE=1 YES=1 STACKS=names PYTHON=python3 VENV=dir TORCH=default|system"

setup: $(READY) ## make the pinned environment in .venv (TORCH=system keeps the installed torch)

# `.torch` shows that the folder is ours, from before it is filled: a setup that was killed begins anew.
$(READY): pyproject.toml constraints.txt constraints.py
	@case "$(TORCH)" in default|system) ;; *) echo "error: TORCH=$(TORCH): it is default (the pinned torch) or system (the torch that $(PYTHON) has)." >&2; exit 2;; esac
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is $$("$(PYTHON)" --version 2>&1); Python 3.11 or newer is needed. PYTHON=python3.11 chooses another." >&2; exit 2; }
	@[ ! -e $(VENV) ] || [ -e $(VENV)/.torch ] || { echo "error: there is a $(VENV) that \`make setup\` did not make. Move it away, or choose another folder with VENV=, as in \`make setup VENV=.venv-sweep\`." >&2; exit 2; }
	@if [ "$(TORCH)" = system ]; then "$(PYTHON)" -c 'import torch' 2>/dev/null || { echo "error: TORCH=system, but $(PYTHON) has no torch. PYTHON= chooses the interpreter that has it; TORCH=default installs the pinned one." >&2; exit 2; }; fi
	@echo "Making the environment in $(VENV) (once; a few minutes) …" >&2
	@mkdir -p $(VENV); [ -e $(VENV)/.torch ] || : > $(VENV)/.torch
	@[ "$$(cat $(VENV)/.torch)" = "$(TORCH)" ] || { find $(VENV) -mindepth 1 -maxdepth 1 ! -name .torch -exec rm -rf {} +; "$(PYTHON)" -m venv $(if $(filter system,$(TORCH)),--system-site-packages) $(VENV); }
	@$(if $(filter system,$(TORCH)),$(PY) -c 'import torch' 2>/dev/null || $(SEE_TORCH))
	@$(PY) constraints.py $(TORCH) < constraints.txt > $(VENV)/constraints.txt
	@PIP_CONSTRAINT=$(VENV)/constraints.txt $(PY) -m pip install -qq --disable-pip-version-check --editable '.[dev]'
	@"$(PYTHON)" -c '$(WHICH)' > $(VENV)/.python
	@echo $(TORCH) > $(VENV)/.torch
	@touch $@

sweep: $(READY) ## run the sweep: what is not in RESULTS yet; then figures and the summary
	@name=$(SWEEP_NAME); code=0; \
	$(PY) -m sweep run --results "$(RESULTS)" --data "$(DATA)" --sweep "$$name" $(PLAN_ARGS) || code=$$?; \
	if [ $$code -eq 0 ] || [ $$code -eq 3 ] || [ $$code -eq 4 ]; then \
	  $(PY) -m analysis summary --figures --results "$(RESULTS)" --sweep "$$name" && \
	  echo "make report SWEEP=$$name writes all of it as one page" || \
	  { failed=$$?; [ $$code -ne 0 ] || code=$$failed; }; \
	fi; exit $$code

stop: $(READY) ## from anywhere: let the driver's running cells finish (NOW=1 stops them), or hold LEASES=n
	@$(PY) -m sweep stop $(SWEEP_ARGS) $(if $(NOW),--now) $(if $(LEASES),--leases "$(LEASES)")

plan: $(READY) ## print what `make sweep` would run, its cost in node-hours, and what it can resolve
	@name=$(SWEEP_NAME); \
	$(PY) -m sweep plan --results "$(RESULTS)" --data "$(DATA)" --sweep "$$name" $(PLAN_ARGS) && \
	$(PY) -m analysis power --results "$(RESULTS)" --sweep "$$name" $(if $(UNTIL),--until "$(UNTIL)")

status: $(READY) ## print what runs, what failed, time and node-hours left, from any machine that sees RESULTS
	@$(PY) -m sweep status $(SWEEP_ARGS) $(SELECT_ARGS)

watch: $(READY) ## keep the status on the screen until Ctrl-C
	@$(PY) -m sweep watch $(SWEEP_ARGS) $(SELECT_ARGS)

collect: $(READY) ## make cells.parquet of what has ended so far, at any time
	@$(PY) -m sweep collect $(SWEEP_ARGS)

show: $(READY) ## print every attempt at CELL=, column by column
	@$(PY) -m sweep show $(if $(CELL),"$(CELL)") $(SWEEP_ARGS)

logs: $(READY) ## print the log of the last attempt at CELL= (FOLLOW=1: of the one that runs, as it grows)
	@$(PY) -m sweep logs $(if $(CELL),"$(CELL)") $(if $(FOLLOW),--follow) $(SWEEP_ARGS)

rerun: $(READY) ## run CELL= again (a prefix of its name or id), or FAILED=1 for all that failed
	@$(PY) -m sweep rerun $(if $(CELL),"$(CELL)") $(if $(FAILED),--failed) $(SWEEP_ARGS) $(PLAN_ARGS)

draft: $(READY) ## look at the training script SCRIPT= without running it, and draft a recipe NAME= (FORCE=1 overwrites)
	@$(PY) -m sweep draft $(if $(SCRIPT),--script "$(SCRIPT)") $(if $(NAME),--name "$(NAME)") $(if $(FORCE),--force)

doctor: $(READY) ## check every node in reach: can it run the sweep's cells?
	@$(PY) -m sweep doctor $(SWEEP_ARGS)

figures: $(READY) ## draw the figures from the rows that are there
	@$(if $(filter report,$(MAKECMDGOALS)),true,$(PY) -m analysis figures --results "$(RESULTS)" --sweep "$(SWEEP_NAME)")

summary: $(READY) ## print the table of means with their intervals
	@$(PY) -m analysis summary --results "$(RESULTS)" --sweep "$(SWEEP_NAME)"

power: $(READY) ## print which difference the grid can resolve, and how many seeds others need
	@$(PY) -m analysis power --results "$(RESULTS)" --sweep "$(SWEEP_NAME)" $(if $(UNTIL),--until "$(UNTIL)")

report: $(READY) ## write report.html, one page that answers, and report.md (`make figures report` shares the work)
	@$(PY) -m analysis report --results "$(RESULTS)" --sweep "$(SWEEP_NAME)" $(if $(filter figures,$(MAKECMDGOALS)),--figures)

submission: $(READY) ## make a records folder of ACTIVATION= of a sweep over a script (OUT=dir FORCE=1 SUBMIT=flags)
	@$(PY) -m analysis submission --results "$(RESULTS)" --sweep "$(SWEEP_NAME)" --activation "$(ACTIVATION)" $(if $(OUT),--out "$(OUT)") $(if $(FORCE),--force) $(SUBMIT)

notebooks: $(READY) ## execute the notebooks on the rows that are there
	@$(PY) -m analysis notebooks --results "$(RESULTS)" --sweep "$(SWEEP_NAME)"

data: $(READY) ## build or fetch the data of RECIPE= (TRAIN_SHARDS=n of it, OFFLINE=1 fetches nothing)
	@$(PY) -m trainer.data prepare --recipe "$(RECIPE)" --root "$(DATA)" $(if $(TRAIN_SHARDS),--train-shards "$(TRAIN_SHARDS)") $(if $(OFFLINE),--offline)

test: $(READY) ## run the tests (minutes), two at a time
	@$(PY) -m pytest -m "not slow" $(PYTEST_ARGS)

test-slow: $(READY) ## run the slower tests, the README's commands among them
	@$(PY) -m pytest -m "slow and not cluster" $(PYTEST_ARGS)

test-cluster: $(READY) ## run sweep.sbatch on a Slurm of namespaces (as root, with its packages; twenty minutes)
	@nice -n 19 $(PY) -m pytest -m cluster --verbose --durations 0 --durations-min 1

test-stacks: $(READY) ## run a part of the tests under other versions (STACKS="lowest image bare newest"; needs uv; gigabytes)
	@$(PY) -m tests.support.stacks $(STACKS)

check: $(READY) ## formatter, linter, type checker and the import rules of the house
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

format: $(READY) ## format the code and mend what the linter can
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

bench-driver: $(READY) ## simulate 1,000 nodes; cost of a cell to the driver; Ray Tune beside it
	@$(PY) -m benchmarks.simulate
	@$(PY) -m benchmarks.driver_scale
	@$(PY) -m benchmarks.tune_comparison

soak: $(READY) ## break sweeps at SEEDS=0:200 random moments, one after the other; goes on where it was
	@$(PY) -m benchmarks.soak --seeds "$(SEEDS)"

mutants: $(READY) ## put small faults into a clone, one by one: do the tests notice?
	@$(PY) -m benchmarks.mutants

bench-gpu: $(READY) ## on a GPU: MLP, step, scoring, reading, memory, compilation, start (CHECK=1 compares)
	@$(PY) -m benchmarks.mlp_kernel
	@$(PY) -m benchmarks.step_time --device cuda $(CHECK_ARGS)
	@$(PY) -m benchmarks.scoring --recipe pr549-clean --device cuda --targets 1048576 $(CHECK_ARGS)
	@$(PY) -m benchmarks.loader --device cuda $(CHECK_ARGS)
	@KINETO_LOG_LEVEL=6 $(PY) -m benchmarks.memory --device cuda --recipes pr549 $(CHECK_ARGS)
	@$(PY) -m benchmarks.warm_compile --device cuda $(CHECK_ARGS)
	@$(PY) -m benchmarks.cell_overhead --device cuda $(CHECK_ARGS)

gpu-check: $(READY) ## the first nine minutes on a GPU: checks in turn, each result kept at once (OUT=gpu-check)
	@$(PY) -m benchmarks.gpu_check --out "$(or $(OUT),gpu-check)"

gpu-bundle: $(READY) ## collect the wheels for a bare machine with a GPU (OUT=gpu-wheels), and say what to type there
	@$(PY) -m benchmarks.gpu_bundle --out "$(or $(OUT),gpu-wheels)"

calibration: $(READY) ## check the statistics on thousands of simulated sweeps (minutes)
	@$(PY) -m benchmarks.calibration
	@$(PY) -m benchmarks.stopping

bench: $(READY) ## on a CPU: step, reading, quantizing, memory, scoring, compilation, start, as ratios (CHECK=1 compares)
	@$(PY) -m benchmarks.step_time $(CHECK_ARGS)
	@$(PY) -m benchmarks.step_on_cpu $(CHECK_ARGS)
	@$(PY) -m benchmarks.loader $(CHECK_ARGS)
	@$(PY) -m benchmarks.quantize $(CHECK_ARGS)
	@KINETO_LOG_LEVEL=6 $(PY) -m benchmarks.memory $(CHECK_ARGS)
	@$(PY) -m benchmarks.scoring $(CHECK_ARGS)
	@$(PY) -m benchmarks.warm_compile $(CHECK_ARGS)
	@$(PY) -m benchmarks.cell_overhead $(CHECK_ARGS)
