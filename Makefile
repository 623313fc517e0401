# The commands of this project. `make` alone explains them.

# smoke, quick, cpu, cpu_native, paper, paper_small, paper_short, paper_native (files in params/), or a path
PROFILE ?= quick
# networks of keras.applications such as VGG16, or .keras files; empty: as the profile says
BACKBONES ?=
# folder of the rows; empty: results/<profile>. Rows that are there are not trained again
RESULTS ?=
# other parameters, such as SET="epochs=3 data='my photos'" (spaces in quotes); `make params` lists them
SET ?=
# of `make bench`: <backbone>/<layer_wise, block_wise, sliding_window or final>; empty: all
CASE ?=
# of `make claim`: a name of verdicts.csv, such as random_beats_baseline_1; others: make claim
CLAIM ?=
# worker processes on this machine; empty: as many as cores, one for each 4 GiB at most; 0: none
WORKERS ?=
# a Dask cluster to use instead: tcp://host:port, or its scheduler file
SCHEDULER ?=
# of `make bundle`: the Python there, such as 3.12; empty: as here
NODE_PYTHON ?=
# of `make photos` and `make predict`: the folder of photos, one folder a class
DIR ?=
# of `make photos`: the pre-trained network; empty: MobileNetV3Small
BACKBONE ?=
# of `make photos`: the folder of what comes out; empty: build/photos/<folder>. Of `make predict`: the CSV
OUT ?=
# of `make predict`: a model.keras that `make photos` wrote
MODEL ?=
# the Python that makes the environment
PYTHON ?= python3

PY       := .venv/bin/python
# Options reach the commands through the environment, letter by letter as they were typed; neither
# make nor the shell takes their blanks, quotes, dollars or equals signs for its own.
OPTIONS  := PROFILE BACKBONES RESULTS SET CASE CLAIM WORKERS SCHEDULER NODE_PYTHON DIR BACKBONE OUT MODEL
# Those of the command line, see `UNUSED`.
GIVEN    := $(foreach o,$(OPTIONS),$(if $(filter command line,$(origin $o)),$o))
$(foreach o,$(OPTIONS),$(eval override export $o := $$(value $o)))
SETTINGS := profile="$$PROFILE" results="$$RESULTS" --set="$$SET"
# Which of them each command takes; the others take none, and files take all.
ROWS          := PROFILE RESULTS SET
TAKES_check   := $(ROWS) BACKBONES
TAKES_paper   := $(ROWS) BACKBONES WORKERS SCHEDULER
TAKES_seeds   := $(TAKES_paper)
TAKES_site    := $(TAKES_paper)
TAKES_run     := $(OPTIONS)
TAKES_figures := $(ROWS)
TAKES_claim   := $(ROWS) CLAIM
TAKES_bench   := $(ROWS) BACKBONES CASE
TAKES_memory  := $(ROWS) BACKBONES
TAKES_bundle  := $(ROWS) BACKBONES NODE_PYTHON
TAKES_photos  := DIR BACKBONE OUT SET
TAKES_predict := MODEL DIR OUT
TAKEN         := $(foreach goal,$(MAKECMDGOALS),$(if $(findstring /,$(goal)),$(OPTIONS),$(TAKES_$(goal))))
# An option that would count for nothing is refused, before anything is made.
UNUSED        := $(if $(MAKECMDGOALS),$(firstword $(filter-out $(TAKEN),$(GIVEN))))
$(if $(UNUSED),$(error $(UNUSED): make $(MAKECMDGOALS) takes no such option; allowed: $(or $(TAKEN),none)))
TRAINING := 01_baselines 02_layer_wise 03_block_wise 04_ranked 05_sliding_window 06_final
READING  := 07_figures 08_verdicts 08_doubts 00_start
# Runs a command with workers for what it trains.
POOLED    = $(PY) -m lib pool --workers="$$WORKERS" --scheduler="$$SCHEDULER" --

export TF_CPP_MIN_LOG_LEVEL ?= 3
export PYTHONUNBUFFERED := 1
# One heap that is never given back, in huge pages. Else glibc maps every large tensor anew and the
# kernel clears it: a sixth of a training step and a third of an evaluation (MobileNetV2, 16 lanes).
export MALLOC_ARENA_MAX ?= 1
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 17179869184
export MALLOC_TOP_PAD_ ?= 268435456
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
# The project's own `lib` comes first, text is UTF-8, and figures go into the notebooks, whatever
# the user's shell says.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
export PYTHONUTF8 := 1
unexport MPLBACKEND PYTHONOPTIMIZE
# Python 3.11's frozen modules make the notebook kernel's debugger complain.
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := help
.PHONY: help env lock check params paper bundle photos predict seeds claim figures layers site verify torture bench scaling memory test test-all test-long lint unit unit-long unit-jax notebooks smoke lab clean run FORCE

help: ## this list
	@echo "Block-wise fine-tuning: the reproducible artefact of Barakat & Huang (2023)."
	@echo
	@grep -hE '^[a-z][a-z-]*:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12
	@echo
	@echo "Options, with their defaults:"
	@grep -hB1 -E '^[A-Z_]+ \?=' Makefile | sed -nE 's/^# (.*)/\1/;h;n;s/ *\?= */=/;G;s/\n/\t/p' | expand -t 22

# PY=python on the command line: that Python has the packages of requirements.txt already.
env: $(if $(filter command line,$(origin PY)),,.venv/.ready) ## make .venv from requirements.txt; once, and again when that file changes

.venv/.ready: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11, 5) <= v < (3, 14) else f"error: \
	Python {v[0]}.{v[1]}.{v[2]} is not supported; allowed: 3.11.5 to 3.13: make PYTHON=python3.12 ...")'
	@$(PYTHON) -c 'import sys, platform as p; here = sys.platform, p.machine(); sys.exit(0 if here[0] == "linux" or \
	here == ("darwin", "arm64") else f"error: {here[0]} {here[1]} is not supported, as TensorFlow has no package \
	for it; allowed: Linux, or macOS on Apple silicon; elsewhere Docker, see Dockerfile")'
	@echo "making .venv: a few minutes and 3.3 GB, once ..."
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@.venv/bin/pip install -qq --disable-pip-version-check -r requirements.txt
	@.venv/bin/pip install -qq --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

lock: ## requirements.txt anew from pyproject.toml, with hashes; needs uv (pip install uv)
	@uv pip compile -q --universal --python-version 3.11.5 --generate-hashes --no-annotate \
	  --group test --custom-compile-command "make lock" pyproject.toml -o requirements.txt

check: env ## check parameters, data and weights, and estimate the cost; trains nothing
	@$(PY) -m lib check $(SETTINGS) backbones="$$BACKBONES"

params: env ## every parameter of SET and of a profile: what it is, what is allowed, its default
	@$(PY) -m lib params

# All runs are trained first: one model then holds those of all notebooks, a third less work than one after the other.
paper: env ## run the paper: every notebook, every figure and Table I
	@$(POOLED) $(PY) -m lib train $(SETTINGS) backbones="$$BACKBONES" || exit; \
	build="$$($(PY) -m lib settings $(SETTINGS) backbones="$$BACKBONES")" || exit; \
	$(MAKE) --no-print-directory -j 3 run BUILD="$$build" \
	  && echo "done: executed notebooks are in $$build"

# Each notebook is executed each time: what it depends on are the resolved parameters and the rows,
# and rows make it quick. BUILD is the folder that `lib settings` prints, where it has written the
# parameters.
ifeq ($(origin BUILD),command line)
run: $(patsubst %,$(BUILD)/%.ipynb,$(TRAINING) $(READING))

$(BUILD)/%.ipynb: notebooks/%.ipynb FORCE
	$(execute)
endif

# Execute notebook $< as $@ with papermill. A notebook that fails is left
# beside its place, never in it; its last error and the number of the code cell are shown.
define execute
@mkdir -p $(@D); rm -f $@; echo "$* ..."
@began=$$(date +%s); $(PY) -m papermill --no-progress-bar -f $(BUILD)/parameters.yaml \
  $< $(@:.ipynb=.failed.ipynb) > $(@:.ipynb=.log) 2>&1 \
  || { grep -E '^[A-Za-z.]*(Error|Interrupt|Died)' $(@:.ipynb=.log) | tail -n 1; \
  echo "failed: $<, cell$$(sed -nE 's/^Exception encountered at "In( \[[0-9]+\])":/\1/p' \
  $(@:.ipynb=.log) | tail -n 1); see $(@:.ipynb=.failed.ipynb)"; exit 1; }; \
  mv -f $(@:.ipynb=.failed.ipynb) $@; echo "$* took $$(($$(date +%s) - began)) s"
endef

bundle: env ## pack everything for a machine without a network, and say how to run it there
	@$(PY) -m lib bundle $(SETTINGS) backbones="$$BACKBONES" --python="$$NODE_PYTHON"

photos: env ## your photos: which layers to tune, and the tuned network (loads ImageNet weights)
	@$(PY) -m lib photos dir="$$DIR" backbone="$$BACKBONE" out="$$OUT" --set="$$SET"

predict: env ## the classes of photos by a tuned network, as a CSV: make predict MODEL=... DIR=...
	@$(PY) -m lib predict model="$$MODEL" dir="$$DIR" out="$$OUT"

seeds: env ## repeat the layer-wise search with other seeds, to see how much of its scatter is chance
	@$(POOLED) $(PY) -m lib seeds $(SETTINGS) backbones="$$BACKBONES"

claim: env ## doubt one claim of the paper: its words, our verdict, every comparison; trains nothing
	@$(PY) -m lib claim $(SETTINGS) --only="$$CLAIM"

figures: env ## redraw all figures and tables from the rows; trains nothing
	@$(PY) -m lib figures $(SETTINGS)

site: paper ## README, docs, executed notebooks and figures as pages: build/site/index.html
	@$(PY) -m lib site $(SETTINGS)

layers: env ## write params/layers.csv, the layers of the paper's backbones, anew from Keras
	@$(PY) -m lib layers

torture: env ## kill a sweep 200 times at random moments and compare its rows with a whole one
	@PYTHONPATH="tests:$$PYTHONPATH" $(PY) tests/torture.py

verify: env ## check all committed rows, and that every figure and table is what they give
	@$(PY) -m lib verify

bench: env ## measure plain against fused: all cases, or CASE="MobileNetV2/layer_wise ..."
	@$(PY) -m lib bench $(SETTINGS) backbones="$$BACKBONES" --only="$$CASE"

scaling: env ## measure one worker against two, and simulate up to 1,000
	@$(PY) -m lib.upkeep.scaling

memory: env ## measure how much memory the largest groups of lanes take, against the estimate
	@$(PY) -m lib memory $(SETTINGS) backbones="$$BACKBONES"

test: lint unit notebooks ## lint, unit and fault tests, every notebook: ten to twenty minutes

test-all: test test-long ## these and what takes longer: JAX, more kills, a bundle, a browser, a whole run

test-long: unit-long unit-jax smoke ## only what takes longer

lint: env
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

# Tests see the project and none of the user's own settings; tests/conftest.py does the same where
# pytest is run alone.
ALONE = env $(addprefix -u ,$(OPTIONS) BLOCKWISE_CACHE TF_NUM_INTRAOP_THREADS \
  TF_NUM_INTEROP_THREADS PYTEST_ADDOPTS PYTHONWARNINGS) KERAS_BACKEND=tensorflow \
  KERAS_HOME="$(CURDIR)/build/tests/keras" IPYTHONDIR="$(CURDIR)/build/tests/ipython"

# A process a core, each file in one of them: tests of a file share networks that take long to make.
IN_PARALLEL := -n auto --maxprocesses 4 --dist loadfile

unit: env
	@$(ALONE) $(PY) -m pytest $(IN_PARALLEL) -m "not long"

unit-long: env
	@$(ALONE) $(PY) -m pytest $(IN_PARALLEL) -m long

unit-jax: env
	@$(ALONE) KERAS_BACKEND=jax $(PY) -m pytest tests/test_fusion.py tests/test_trunk.py tests/test_checkpoint.py

# Every cell of every notebook, with the parameters of `smoke`, as nbval runs them.
notebooks: env
	@rm -rf build/nbval && mkdir -p build/tests
	@$(PY) tests/prepare.py
	@$(ALONE) $(PY) -m pytest --nbval build/nbval -p no:cacheprovider

# One run from parameters to figures, from nothing; then a look at what came out.
smoke: env
	@rm -rf build/smoke && mkdir -p build/tests
	@$(ALONE) $(MAKE) --no-print-directory paper PROFILE=smoke RESULTS=build/smoke/rows \
	  SET= BACKBONES= WORKERS=2
	@$(ALONE) $(PY) -m pytest tests/after_smoke.py

lab: env ## JupyterLab on the notebooks
	@$(PY) -m jupyterlab --notebook-dir=notebooks

clean: ## remove what was built, checkpoints too; results/, figures/ and .venv stay
	rm -rf build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find lib tests -name __pycache__ -prune -exec rm -rf {} +

FORCE:
