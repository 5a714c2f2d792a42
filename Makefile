PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FULL_RUN := notebooks/08_full_run.ipynb
LOCAL := runs/local/08_full_run.ipynb
NOTEBOOKS = notebooks/*.ipynb
KEEP := metadata.papermill cell.metadata.papermill cell.metadata.execution metadata.language_info.version
NORMALISE = $(BIN)/nbstripout --keep-output --keep-count --keep-id --extra-keys '$(KEEP)'
REFERENCE := results/reference
CHOSEN := $(strip $(ONLY) $(SETTINGS))
CHOICE = $(if $(CHOSEN),'only=$(CHOSEN)') $(if $(SEEDS),'seeds=$(SEEDS)') $(if $(DEVICE),'device=$(DEVICE)')
VARIABLES := PYTHON ONLY SETTINGS SEEDS DEVICE DRY FUZZ
SEED := $(or $(FUZZ),$(shell od -An -N3 -tu4 /dev/urandom | tr -d ' '))
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command line,$(origin $(name))),$(name)))
$(foreach name,$(filter-out $(VARIABLES) MAKE%,$(GIVEN)),$(error $(name) is no variable of this Makefile; there are $(VARIABLES)))

.PHONY: help setup run studies book pdf test slurm fuzz mutants lint normalise pages refresh reference requirements bench peers gpu clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## make .venv with everything in requirements.txt
	@$(BIN)/python -c 'import platform, torch; cuda, gpu = torch.version.cuda, torch.cuda.is_available(); \
	  build = "CUDA " + cuda + (", " + torch.cuda.get_device_name() if gpu else ", no GPU found") if cuda else "CPU"; \
	  print("Ready in $(VENV): Python %s, torch %s (%s)" % (platform.python_version(), torch.__version__, build))'
	@echo "Next: make run (train and build the book), make test (check everything), make help (the rest)"

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:3]; (3, 11, 2) <= v < (3, 14) or sys.exit("Python 3.11.2 to 3.13 is needed; $(PYTHON) is %d.%d.%d; name another one with PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages of requirements.txt into $(VENV); torch is the largest by far. A few minutes ..."
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@echo "Compiling the training step for this machine with Numba, once; about half a minute ..."
	$(BIN)/python -c "from tvae_lib.fused.twins import compile_all; compile_all()"
	@touch $@

run: $(READY) ## train the 400 epochs on this machine (or show them again) and build the book
	@mkdir -p $(dir $(LOCAL))
	$(BIN)/papermill $(FULL_RUN) $(LOCAL) --cwd notebooks --log-output --no-progress-bar
	$(BIN)/python book/build.py --full-run $(LOCAL)
	@echo "The book with your run: _build/html/index.html"

studies: $(READY) ## train what results/ lacks of the chapters' studies; ONLY=phases,document SEEDS=0,3 for a part, DRY=1 to look
	@test -w . || { echo "this folder cannot be written, and make studies keeps its runs and notes here" >&2; exit 1; }
	$(BIN)/snakemake --snakefile studies/Snakefile $(if $(DRY),--dry-run) $(if $(strip $(CHOICE)),--config $(strip $(CHOICE)))

book: $(READY) ## build the book with the reference run
	$(BIN)/python book/build.py

lint: $(READY) ## ruff over code and notebooks, order of imports, types, notebook hygiene
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(NORMALISE) --verify $(NOTEBOOKS)

pdf: $(READY) ## print the whole book as one PDF, with a Chromium on the path
	$(BIN)/python book/pdf.py

test: lint ## lint, then unit, property, fault and notebook tests; the last line gives the counts
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --nbval -n logical --dist loadfile

refresh: $(READY) ## execute every notebook again, normalise it, write the generated pages
	for notebook in $(NOTEBOOKS); do \
	  TVAE_SHOW_REFERENCE=1 $(BIN)/papermill $$notebook $$notebook --cwd notebooks --no-progress-bar || exit 1; \
	done
	$(NORMALISE) $(NOTEBOOKS)
	$(BIN)/python book/generate.py

normalise: $(READY) ## take out of the notebooks what the machine that executed them left
	$(NORMALISE) $(NOTEBOOKS)

pages: $(READY) ## write the generated pages again: equation index, library, ledger, summary, findings
	$(BIN)/python book/generate.py

requirements: ## pin what pyproject.toml asks for and what that needs; pins that still fit stay
	$(PYTHON) -m venv _build/compile
	_build/compile/bin/python -m pip install --quiet --disable-pip-version-check pip-tools
	CUSTOM_COMPILE_COMMAND="make requirements" _build/compile/bin/pip-compile --quiet --all-extras --strip-extras \
	  --allow-unsafe --annotation-style=line --no-emit-index-url --no-emit-find-links --no-emit-options \
	  --output-file=requirements.txt pyproject.toml
	sed -i.bak 's/^\(torch==[0-9.]*\)+[a-z0-9]*/\1/' requirements.txt && rm requirements.txt.bak

reference: $(READY) ## make the run in runs/document-seed0 the reference run, then refresh
	test -f runs/document-seed0/metrics.json
	rm -rf $(REFERENCE)
	mkdir -p $(REFERENCE)
	cp -r runs/document-seed0/. $(REFERENCE)
	rm -f $(REFERENCE)/checkpoint.safetensors $(REFERENCE)/.lock
	$(MAKE) refresh

slurm: $(READY) ## on Debian: install Slurm, and run a small study on one node of it, killed in the middle
	$(if $(filter 0,$(shell id -u)),,sudo )apt-get update
	$(if $(filter 0,$(shell id -u)),,sudo )apt-get install --yes --no-install-recommends slurm-wlm munge
	$(BIN)/python -m pytest -q -rs tests/studies/test_slurm.py

fuzz: $(READY) ## attack parameters, run directories, results and running processes, in about half an hour; FUZZ=7 repeats a seed
	@echo "seed $(SEED); make fuzz FUZZ=$(SEED) does the same again"
	OMP_NUM_THREADS=1 TVAE_FUZZ=$(SEED) $(BIN)/python -m pytest -q -n logical --hypothesis-seed=$(SEED) tests/fuzz

mutants: $(READY) ## make each mistake of tests/mutations.yml in a copy, and see that it is noticed
	$(BIN)/python tests/mutate.py

bench: $(READY) _build/jax/.ready ## speed against a plain loop, Pyro, JAX and the matrix products alone, in about five minutes
	PYTHONPATH=. $(BIN)/python benchmarks/bench.py --jax _build/jax/bin/python
	$(BIN)/papermill notebooks/performance.ipynb notebooks/performance.ipynb --cwd notebooks --no-progress-bar
	$(NORMALISE) notebooks/performance.ipynb

_build/jax/.ready: # a peer of the benchmark, in an environment of its own
	$(PYTHON) -m venv _build/jax
	_build/jax/bin/python -m pip install --quiet --disable-pip-version-check jax
	@touch $@

peers: $(READY) _build/peers/.ready ## train VAEs of pythae and Pyro on the same data, in about half an hour
	PYTHONPATH=. _build/peers/bin/python -m studies part peers all
	PYTHONPATH=. _build/peers/bin/python -m studies merge peers

_build/peers/.ready: # pythae, in an environment of its own
	$(PYTHON) -m venv _build/peers
	_build/peers/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt pythae
	@touch $@

gpu: ## on a machine with a GPU and torch, no network needed: GPU tests, full run, timing; results in runs/gpu
	bash benchmarks/gpu.sh

clean: ## remove .venv, the built book and caches; your runs stay
	rm -rf $(VENV) _build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis *.egg-info
