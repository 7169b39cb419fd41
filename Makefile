# `make` alone prints what there is. Everything installs into .venv; nothing outside the checkout is touched.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The Slurm executor, a package of its own.
PLUGIN := plugins/snakemake-executor-plugin-submitit
# The workflow's Python and its jobs' Python are the one of .venv, whatever the shell's PATH says.
SNAKEMAKE := PATH="$$PWD/$(BIN):$$PATH" $(BIN)/snakemake --profile profiles/local

.DEFAULT_GOAL := help
.PHONY: help setup demo reproduce recipes placements test test-browser test-plugin test-envs lint docs site test-slurm other-slurm clean-results

help: ## Print this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv and install the pinned dependencies (about 2 GB with the CPU build of torch).
	@echo "setup: $(VENV) is ready"

# The stamp is written last, so an installation that was cut short is taken up again; pip keeps what it has.
$(STAMP): pyproject.toml constraints.txt $(PLUGIN)/pyproject.toml
	@echo "setup 1/3: virtual environment in $(VENV)"
	@command -v $(PYTHON) > /dev/null || { echo "setup: $(PYTHON) not found; install Python 3.11 or set PYTHON=..." >&2; exit 1; }
	@$(BIN)/python -c "import pip, sys; sys.exit(sys.version_info < (3, 11))" 2> /dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python scripts/mend_venv.py
	@echo "setup 2/3: torch, the largest package"
	$(BIN)/pip install --progress-bar on -c constraints.txt torch==2.13.0
	@echo "setup 3/3: all other packages, and from this checkout promptecho itself and the Slurm executor"
	$(BIN)/pip install --progress-bar on -c constraints.txt --config-settings editable_mode=compat -e ".[all,test,docs]" -e $(PLUGIN)
	@$(BIN)/promptecho --version > /dev/null
	@touch $@

demo: setup ## Run the embedded experiment from captions to tables and print its tables.
	@echo "demo: experiment shapes, from captions to tables; results go to results/shapes"
	@PATH="$$PWD/$(BIN):$$PATH" scripts/unlock.sh snakemake --profile profiles/local
	@echo "demo: first captions for training, and the base model's images and scores"
	@$(SNAKEMAKE) --config experiments=shapes -- base
	@$(BIN)/promptecho tables --table captions --benchmark heldout --scores results/shapes/scores/heldout/base/0.json --print --no-notes
	@$(BIN)/python scripts/demo_ahead.py results/shapes
	@$(SNAKEMAKE) --config experiments=shapes -- all
	@echo
	@$(BIN)/promptecho show results/shapes --table heldout --table geneval --no-notes
	@echo
	@echo "demo: of all six benchmarks, with the notes below the tables: $(BIN)/promptecho show results/shapes"
	@echo "demo: results/README.md explains what lies where"

reproduce: setup ## Train and judge the ablations, three seeds each, and write their tables on docs/results-shapes.md; several hours.
	@$(SNAKEMAKE) --config experiments=ablations --keep-going -- all
	@$(BIN)/python scripts/results_page.py --add results/ablations

# Twelve iterations each with seeds 1 to 3: the demo's recipe, the same with the other beginning of the adapter, AWM's
# published settings (but for this world's group sizes and sampler), and four passes with one draw or four.
SEEDS := 1 2 3
RECIPE_RUNS := kaiming gaussian awm once anew
RECIPES := $(foreach r,$(RECIPE_RUNS),$(foreach s,$(SEEDS),shapes.runs.$r-s$s.seed=$s shapes.runs.$r-s$s.iterations=12 \
             shapes.runs.$r-s$s.checkpoints=[12] shapes.runs.$r-s$s.heldout.every=6)) \
           $(foreach s,$(SEEDS),shapes.runs.gaussian-s$s.lora.init=gaussian shapes.runs.awm-s$s.preset=awm-published \
             $(foreach k,prompts_per_iteration=12 images_per_prompt=8 update_images_per_prompt=null batch_size=96 sampling.num_inference_steps=8, \
               shapes.runs.awm-s$s.$k) \
             $(foreach r,once anew,shapes.runs.$r-s$s.passes=4 shapes.runs.$r-s$s.learning_rate=1e-4) \
             shapes.runs.anew-s$s.timesteps.redraw=pass)

recipes: demo ## Other recipes than the demo's, three seeds each (docs/training.md); several hours on two cores.
	@$(SNAKEMAKE) --config experiments=shapes 'set=$(RECIPES)' --set-threads train=1 -- results/shapes/tables/heldout.md
	@$(BIN)/promptecho show results/shapes --table heldout

DEDICATED := placements.runs.dedicated-s1.seed=1 placements.runs.dedicated-s1.reward_placement.mode=dedicated

placements: setup ## The demo's training with each placement of the reward, on two processes (docs/results-shapes.md).
	@$(SNAKEMAKE) --config experiments=placements 'set=$(DEDICATED)' --cores 1 --set-resources train:tasks_per_node=2 \
	    --set-threads train=1 -- all
	@$(BIN)/promptecho show results/placements --table heldout

# Files of tests side by side, each on one core, or with a Slurm cluster of its own: most wait for other processes.
TEST_JOBS ?= 2
PYTEST = $(BIN)/pytest --numprocesses $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

# Beside the other packages, not among them: what training.trackers may write to, 110 MB that few users want.
TRACKERS := $(VENV)/trackers
$(TRACKERS)/.installed: envs/wandb.txt envs/trackio.txt | setup
	@rm -rf $(TRACKERS)
	@$(BIN)/pip install -q --no-deps --target $(TRACKERS) -r envs/wandb.txt -r envs/trackio.txt && touch $@ || \
		{ rm -rf $(TRACKERS); echo "NO TRACKERS: pip could not install envs/wandb.txt and envs/trackio.txt" >&2; }

test: setup $(TRACKERS)/.installed ## Run the unit and workflow tests (TEST_JOBS=2 files at a time).
	OMP_NUM_THREADS=1 $(PYTEST) tests/unit tests/workflow $(PLUGIN)/tests

test-compiled: setup ## Run the tests that compile models, which `make test` leaves out.
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(TEST_JOBS) -m compiled tests/unit/test_compiled.py

test-plugin: ## Build the executor and test it alone, with the lowest and the highest versions it allows (needs a package index).
	$(PYTHON) $(PLUGIN)/tests/both_ends.py

test-envs: setup ## Ask the package index whether envs/*.yaml resolve to their lock files (a quarter of an hour of waiting).
	$(BIN)/python scripts/lock_envs.py --check

lint: setup ## Check the Python code, its types, the workflow and its layout.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(SNAKEMAKE) --lint
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/promptecho config docs --check

docs: setup ## Write the pages that are generated from the configuration models and the commands.
	$(BIN)/promptecho config docs

site: setup ## Build the site of all pages into build/site, to open from disk; a warning ends it.
	@$(BIN)/python -m sphinx -q -n -W --keep-going -c docs/site -d build/site-doctrees . build/site
	@echo "site: build/site/index.html"

test-browser: setup ## Look at the workflow's report and the site in a real browser (with root and apt-get it is installed).
	@command -v chromium > /dev/null || command -v google-chrome > /dev/null || { [ "$$(id -u)" = 0 ] && \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium; } \
		> /dev/null || echo "NO BROWSER: Chromium is not here and could not be installed" >&2
	$(BIN)/pytest tests/workflow/test_report.py tests/workflow/test_docs_site.py -k browser

# Beside the other packages, not among them: Snakemake imports every executor plugin that it finds.
STANDARD := $(VENV)/standard-slurm-plugin
STANDARD_PINS := snakemake-executor-plugin-slurm==2.8.0 snakemake-executor-plugin-slurm-jobstep==0.6.1
# Plugins for --logger, and what they stand on.
LOGGERS := $(VENV)/logger-plugins
LOGGER_PINS := snakemake-logger-plugin-snakesee==0.1.1 snakemake-logger-plugin-snkmt==0.1.9 snkmt==0.4.0 \
               aiosqlite==0.21.0 alembic==1.20.1 loguru==0.7.3 Mako==1.4.3

# Another Slurm than this machine's: a folder that tests/slurm/other_slurm.py has made.
SLURM :=
SUITE := sid
test-slurm: export PATH := $(if $(SLURM),$(abspath $(SLURM))/bin:)$(PATH)

other-slurm: ## Fetch the Slurm of another Debian suite (SUITE=sid) for `make test-slurm SLURM=.venv/slurm-sid`.
	@[ -d $(VENV)/slurm-$(SUITE) ] || python3 tests/slurm/other_slurm.py --suite $(SUITE) --folder $(VENV)/slurm-$(SUITE)

test-slurm: setup ## Run the tests on a real Slurm cluster, started on this machine (needs root and apt-get).
	@[ -z "$(SLURM)" ] || [ -x "$(SLURM)/bin/slurmctld" ] || { echo "SLURM=$(SLURM): no Slurm there; make other-slurm" >&2; exit 1; }
	@$(BIN)/python tests/slurm/cluster.py install
	@[ -d $(STANDARD) ] || $(BIN)/pip install -q --no-deps --target $(STANDARD) $(STANDARD_PINS) || \
		{ rm -rf $(STANDARD); echo "NO STANDARD PLUGIN: pip could not install $(STANDARD_PINS)" >&2; }
	@[ -d $(LOGGERS) ] || $(BIN)/pip install -q --no-deps --target $(LOGGERS) $(LOGGER_PINS) || \
		{ rm -rf $(LOGGERS); echo "NO LOGGER PLUGINS: pip could not install $(LOGGER_PINS)" >&2; }
	$(PYTEST) tests/slurm

CONFIRM ?=

clean-results: ## Delete all results, after asking (CONFIRM=yes: without asking).
	@$(BIN)/python scripts/clean_results.py --confirm "$(CONFIRM)"
