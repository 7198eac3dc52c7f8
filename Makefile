# Needs Python and make. Each target makes its own virtual environment.
PYTHON ?= python3
MODEL ?=
TARGETS ?=

VENV := .venv
PARITY_VENV := .venv-parity
RAY_VENV := .venv-ray
STORES_VENV := .venv-stores
CLIENTS_VENV := .venv-clients
MTEB_VENV := .venv-mteb
INTEGRATIONS_VENV := .venv-integrations
NODE := build/node
MINILM := .models/all-MiniLM-L6-v2/model.safetensors

.PHONY: demo test test-ray parity differences stores mteb integrations targets clients page explanation-page lint wheel \
    clean

demo: $(VENV)/ready $(MINILM)
	$(VENV)/bin/gte-np similarity .models/all-MiniLM-L6-v2 "How many people live in London?" \
	    "Around 9 million people live in London" "London is known for its financial district" \
	    "A happy dog runs over the beach" "How large is the population of England's capital?"

# What looks at memory, threads, processes and time runs one by one; the rest on all processors.
LONE_TESTS := $(addsuffix .py,tests/fuzz/test_hardening $(addprefix tests/test_,fork hub jobs many_threads merging \
    serve_process similarity threads workspace))
test: $(VENV)/ready $(MINILM)
	$(VENV)/bin/python -m pytest -n auto --dist worksteal $(addprefix --ignore=,$(LONE_TESTS))
	$(VENV)/bin/python -m pytest $(LONE_TESTS)

# Jobs on a real Ray, which is large (some 500 MB): it has an environment of its own.
test-ray: $(RAY_VENV)/ready
	$(RAY_VENV)/bin/python -m pytest tests/extras/test_ray.py

parity: $(PARITY_VENV)/ready $(MINILM)
	$(PARITY_VENV)/bin/python -m scripts.parity $(MODEL)

# Writes DIFFERENCES.md: calls of sentence-transformers and of gte_np, side by side.
differences: $(PARITY_VENV)/ready $(MINILM)
	$(PARITY_VENV)/bin/python -m scripts.compare_calls

# The snippets of STORES.md, with the stores themselves.
stores: $(STORES_VENV)/ready $(MINILM)
	$(STORES_VENV)/bin/python -m pytest tests/extras/test_stores.py

# Tasks of mteb, whose scores must be those of sentence-transformers.
mteb: $(MTEB_VENV)/ready $(MINILM)
	$(MTEB_VENV)/bin/python -m pytest -s tests/extras/test_mteb.py

# INTEGRATIONS.md, and gte_np.integrations with the libraries themselves, which warn of one another when imported.
integrations: $(INTEGRATIONS_VENV)/ready $(MINILM)
	$(INTEGRATIONS_VENV)/bin/python -m pytest -W default tests/extras/test_integrations.py

# TARGETS='--python "COMMAND"' adds a Python of another processor, perhaps emulated; see scripts/run_targets.py.
targets: $(VENV)/ready $(MINILM)
	$(VENV)/bin/python -m scripts.run_targets $(TARGETS)

# Real clients and a fuzzer against gte-np serve. One of the clients is for Node.js, which must be installed.
clients: $(NODE)/ready $(CLIENTS_VENV)/ready $(MINILM)
	$(CLIENTS_VENV)/bin/python -m scripts.serve_clients .models/all-MiniLM-L6-v2

# The page of gte-np serve in a headless Chromium, whose driver must be installed; pictures go to build/page.
page: $(CLIENTS_VENV)/ready $(MINILM)
	$(CLIENTS_VENV)/bin/python -m scripts.look_at_page .models/all-MiniLM-L6-v2 build/page

# The page of an explanation, likewise.
explanation-page: $(CLIENTS_VENV)/ready $(MINILM)
	$(CLIENTS_VENV)/bin/python -m scripts.look_at_explanation .models/all-MiniLM-L6-v2 build/explanation

lint: $(VENV)/ready
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# For this machine's processor family; `python -m scripts.build_wheels` builds all.
wheel: $(VENV)/ready $(MINILM)
	$(VENV)/bin/python -m scripts.build_wheels --machine $$(uname -m)
	$(VENV)/bin/python -m scripts.check_wheel dist/*_$$(uname -m).whl

clean:
	rm -rf $(VENV) $(PARITY_VENV) $(RAY_VENV) $(STORES_VENV) $(CLIENTS_VENV) $(MTEB_VENV) $(INTEGRATIONS_VENV) \
	    .models build dist *.egg-info

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

$(RAY_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(RAY_VENV)
	$(RAY_VENV)/bin/python -m pip install --quiet --editable ".[test,ray]"
	touch $@

$(STORES_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(STORES_VENV)
	$(STORES_VENV)/bin/python -m pip install --quiet --no-compile --editable ".[stores]" pytest
	touch $@

$(INTEGRATIONS_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(INTEGRATIONS_VENV)
	$(INTEGRATIONS_VENV)/bin/python -m pip install --quiet $(TORCH)
	$(INTEGRATIONS_VENV)/bin/python -m pip install --quiet --editable ".[integrations]" pytest
	touch $@

$(CLIENTS_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/python -m pip install --quiet --editable ".[clients]"
	touch $@

$(NODE)/ready: Makefile
	@{ node --version && npm --version; } >/dev/null 2>&1 || { echo "make clients needs Node.js with npm: install them." >&2; exit 1; }
	npm install --silent --no-fund --no-audit --prefix $(NODE) openai@6
	touch $@

$(MTEB_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(MTEB_VENV)
	$(MTEB_VENV)/bin/python -m pip install --quiet $(TORCH)
	$(MTEB_VENV)/bin/python -m pip install --quiet --editable ".[test,mteb]" "sentence-transformers>=5"
	touch $@

$(MINILM): $(VENV)/ready
	$(VENV)/bin/python -m scripts.fetch_minilm
