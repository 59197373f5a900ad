# Every target sets up what it needs: a fresh clone and a Python are enough.

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-lmms-eval test-vlmevalkit check verify-released bench gpu-bench gpu-train clean

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
# A command may exist and still refuse to run (version managers leave such shims), so each candidate is tried.
PYTHON ?= $(shell for python in python3.12 python3.11 python3.13 python3 python; do \
	  if $$python -c '$(SUPPORTED)' >/dev/null 2>&1; then echo $$python; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
TOOLKITS := .venvs
WORKERS ?= 2
PICTURE ?= src/saccade/assets/pictures/shapes.png
QUESTION ?= How many objects are there?
GPU_PYTHON ?= $(if $(wildcard $(VENV)/.core),$(BIN)/python,python3)

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON (3.11 to 3.13), WORKERS=$(WORKERS) test processes, PICTURE and QUESTION of the demo."

demo: $(VENV)/.core  ## Ask the bundled model about a picture, show where the time goes and what it looked at
	$(BIN)/saccade ask "$(PICTURE)" "$(QUESTION)" --timings
	$(BIN)/saccade explain "$(PICTURE)" "$(QUESTION)" --out runs/explanation.png

test: $(VENV)/.dev  ## Run the tests (CPU, six minutes on two cores)
	$(BIN)/python -m pytest -n $(WORKERS)

test-slow: $(VENV)/.dev  ## Run the tests that take minutes
	$(BIN)/python -m pytest -n $(WORKERS) -m "slow and not gpu"

test-lmms-eval: $(TOOLKITS)/lmms-eval/.ready  ## Ask nano through lmms-eval, in an environment of its own
	$(TOOLKITS)/lmms-eval/bin/python -m pytest tests/bridges/test_lmms_eval.py

test-vlmevalkit: $(TOOLKITS)/vlmevalkit/.ready  ## Ask nano through VLMEvalKit, in an environment of its own (torchvision)
	$(TOOLKITS)/vlmevalkit/bin/python -m pytest tests/bridges/test_vlmevalkit.py

check: $(VENV)/.dev  ## Lint, format, types and the rules of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_house.py

verify-released: $(VENV)/.core  ## Prove that the published checkpoints load whole (needs a network; 5 to 7 GB each)
	@mkdir -p docs/results
	$(BIN)/saccade doctor --model Tongbo/FlashSloth-3.2B --out docs/results/released_flashsloth.json
	$(BIN)/saccade doctor --model Tongbo/FlashSloth_HD-3.2B --out docs/results/released_flashsloth_hd.json
	for variant in Static Static-GRPO Dynamic Dynamic-ISS; do \
	  $(BIN)/saccade doctor --model FlashVL/FlashVL-2B-$$variant --pictures 16 \
	    --out docs/results/released_flashvl_$$variant.json || exit 1; done

bench: $(VENV)/.core  ## Time a training step for each attention backend; prints JSON
	$(BIN)/python tools/bench_attention.py

# Without an environment of its own: a lent accelerator may have no network to make one with.
gpu-bench:  ## Measure everything on a CUDA device, eight minutes at most; files go to OUT, or runs/gpu-bench
	PYTHONPATH="src$${PYTHONPATH:+:$$PYTHONPATH}" $(GPU_PYTHON) tools/gpu_bench.py

gpu-train:  ## Train both models at full size for two steps a stage on a CUDA device, and the table of training costs
	PYTHONPATH="src$${PYTHONPATH:+:$$PYTHONPATH}" $(GPU_PYTHON) tools/gpu_train.py

clean:  ## Remove caches and build products; the environment stays
	rm -rf build dist src/*.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

define check-python
@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.13 found; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
@$(PYTHON) -c '$(SUPPORTED)' || { echo "$(PYTHON) is not a Python 3.11 to 3.13; name one: make PYTHON=..." >&2; exit 1; }
endef

# Two stamps, because someone who only wants the demo should not wait for linters. A stamp is older than pyproject.toml exactly
# when the dependencies may have changed.
$(VENV)/.core: pyproject.toml
	$(check-python)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

# The toolkits are installed without what they depend on, which is more than a benchmark of pictures needs: the files list that.
$(TOOLKITS)/%/.ready: tests/bridges/%.txt pyproject.toml
	$(check-python)
	$(PYTHON) -m venv $(TOOLKITS)/$*
	$(TOOLKITS)/$*/bin/python -m pip install --quiet --editable . --requirement $<
	@! grep -q '^torchvision$$' $< || $(TOOLKITS)/$*/bin/python -c 'import torchvision' 2>/dev/null || { \
	  echo "torch came from another place than torchvision: installing both from the registry"; \
	  $(TOOLKITS)/$*/bin/python -m pip uninstall --quiet --yes torch torchvision; \
	  PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= $(TOOLKITS)/$*/bin/python -m pip install --quiet --editable . --requirement $< && \
	  $(TOOLKITS)/$*/bin/python -c 'import torchvision'; }
	$(TOOLKITS)/$*/bin/python -m pip install --quiet --no-deps $$(sed -n 's/^# toolkit: //p' $<)
	@touch $@
