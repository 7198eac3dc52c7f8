# Needs Python and make. Each target makes its own virtual environment.
PYTHON ?= python3
MODEL ?=
TARGETS ?=

VENV := .venv
PARITY_VENV := .venv-parity
CLIENTS_VENV := .venv-clients
MINILM := .models/all-MiniLM-L6-v2/model.safetensors

.PHONY: demo test parity targets clients page lint wheel clean

demo: $(VENV)/ready $(MINILM)
	$(VENV)/bin/gte-np similarity .models/all-MiniLM-L6-v2 "How many people live in London?" \
	    "Around 9 million people live in London" "London is known for its financial district" \
	    "A happy dog runs over the beach" "How large is the population of England's capital?"

test: $(VENV)/ready $(MINILM)
	$(VENV)/bin/python -m pytest

parity: $(PARITY_VENV)/ready $(MINILM)
	$(PARITY_VENV)/bin/python -m scripts.parity $(MODEL)

# TARGETS='--python "COMMAND"' adds a Python of another processor, perhaps emulated; see scripts/run_targets.py.
targets: $(VENV)/ready $(MINILM)
	$(VENV)/bin/python -m scripts.run_targets $(TARGETS)

# Real clients and a fuzzer against gte-np serve.
clients: $(CLIENTS_VENV)/ready $(MINILM)
	$(CLIENTS_VENV)/bin/python -m scripts.serve_clients .models/all-MiniLM-L6-v2

# The page of gte-np serve in a headless Chromium, whose driver must be installed; pictures go to build/page.
page: $(CLIENTS_VENV)/ready $(MINILM)
	$(CLIENTS_VENV)/bin/python -m scripts.look_at_page .models/all-MiniLM-L6-v2 build/page

lint: $(VENV)/ready
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# For this machine's processor family; `python -m scripts.build_wheels` builds all.
wheel: $(VENV)/ready $(MINILM)
	$(VENV)/bin/python -m scripts.build_wheels --machine $$(uname -m)
	$(VENV)/bin/python -m scripts.check_wheel dist/*_$$(uname -m).whl

clean:
	rm -rf $(VENV) $(PARITY_VENV) $(CLIENTS_VENV) .models build dist *.egg-info

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable ".[test,lint]"
	touch $@

# Where there is a CPU build of torch 2.13.0 it is taken at once; elsewhere set TORCH to what fits.
TORCH ?= torch==2.13.0
$(PARITY_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_VENV)/bin/python -m pip install --quiet $(TORCH)
	$(PARITY_VENV)/bin/python -m pip install --quiet --editable ".[parity]"
	touch $@

$(CLIENTS_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/python -m pip install --quiet --editable ".[clients]"
	touch $@

$(MINILM): $(VENV)/ready
	$(VENV)/bin/python -m scripts.fetch_minilm
