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
CHOICE = $(strip $(SETTINGS:%=only=%) $(SEEDS:%=seeds=%) $(DEVICE:%=device=%))

.PHONY: help setup run sweep book test mutants lint refresh reference experiments bench gpu clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## make .venv with everything in requirements.txt

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed; $(PYTHON) is {sys.version.split()[0]}")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

run: $(READY) ## train the 400 epochs on this machine (or show them again) and build the book
	@mkdir -p $(dir $(LOCAL))
	$(BIN)/papermill $(FULL_RUN) $(LOCAL) --cwd notebooks --log-output --no-progress-bar
	$(BIN)/python book/build.py --full-run $(LOCAL)
	@echo "The book with your run: _build/html/index.html"

sweep: $(READY) ## train what workflow/sweep.yaml lists, as far as results/sweep lacks it; SETTINGS=document SEEDS=0,3 for a part
	$(BIN)/snakemake $(if $(CHOICE),--config $(CHOICE))

book: $(READY) ## build the book with the reference run
	$(BIN)/python book/build.py

lint: $(READY) ## ruff over code and notebooks, notebook hygiene
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(NORMALISE) --verify $(NOTEBOOKS)

test: lint ## lint, then unit, property, fault and notebook tests; the last line gives the counts
	$(BIN)/python -m pytest -q --nbval

refresh: $(READY) ## execute every notebook again, normalise it, write the generated pages
	for notebook in $(NOTEBOOKS); do \
	  TVAE_SHOW_REFERENCE=1 $(BIN)/papermill $$notebook $$notebook --cwd notebooks --no-progress-bar || exit 1; \
	done
	$(NORMALISE) $(NOTEBOOKS)
	$(BIN)/python book/generate.py

reference: $(READY) ## make the run in runs/document-seed0 the reference run, then refresh
	test -f runs/document-seed0/metrics.json
	rm -rf $(REFERENCE)
	mkdir -p $(REFERENCE)
	cp -r runs/document-seed0/. $(REFERENCE)
	rm -f $(REFERENCE)/checkpoint.safetensors $(REFERENCE)/.lock
	$(MAKE) refresh

experiments: $(READY) ## train what chapters 2 to 9 show, as far as results/experiments lacks it: nothing, or up to five hours
	$(BIN)/python -m tvae_lib.experiments

mutants: $(READY) ## make each mistake of tests/mutations.yml in a copy, and see that it is noticed
	$(BIN)/python tests/mutate.py

bench: $(READY) ## speed against a plain loop, Pyro and the matrix products alone, in about three minutes
	PYTHONPATH=. $(BIN)/python benchmarks/bench.py
	@$(BIN)/python book/generate.py

gpu: ## on a machine with a GPU and torch, no network needed: GPU tests, full run, timing; results in runs/gpu
	bash benchmarks/gpu.sh

clean: ## remove .venv, the built book and caches; your runs stay
	rm -rf $(VENV) _build .pytest_cache .ruff_cache .hypothesis *.egg-info
