# Everything is installed into .venv; nothing is registered outside this folder.
#
# `make env` needs Python 3.11, 3.12 or 3.13 with venv and pip, and nothing else. Name one with `make env PYTHON=...`;
# `VENV=.venv-newest`, say, keeps a second environment beside the first.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed-from-lock
UV := $(BIN)/uv
DEMO := runs/demo
HEAR := .venv-hear
TRANSFORMERS := .venv-transformers
XARES := .venv-xares
SCREENSHOTS := reports/screenshots
LOCK_FLAGS := --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --extra lab --extra formats --extra onnx --extra dev --extra docs

# A Python that the caller's shell points at must not leak into .venv.
unexport PYTHONPATH
unexport PYTHONHOME
# Jupyter looks for kernels here first: `python3` is then .venv's own, whatever is in the user's home.
export JUPYTER_PATH := $(CURDIR)/$(VENV)/share/jupyter
export JUPYTER_PREFER_ENV_PATH := 1
# uv trusts the machine's certificates where it has some (a company's proxy may need that), else the ones it brings.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem),)
export UV_SYSTEM_CERTS := true
endif

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all browser hear transformers xares lab lint format docs lock clean

help: ## Show this list
	@echo "asit_lab: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-16s%s\n", $$1, $$2 }'

env: $(STAMP) ## Set everything up in .venv (Python 3.11 to 3.13; about 6.5 GB)

demo: env ## Run notebooks/pretrain.ipynb on made-up sounds (minutes) into runs/demo
	@mkdir -p $(DEMO)
	@echo "Training takes minutes, in which the bar stands still; watch it in another terminal: $(BIN)/asit-lab runs"
	ASIT_LAB_HOME="$(CURDIR)" $(BIN)/papermill notebooks/pretrain.ipynb $(DEMO)/pretrain.ipynb -k python3 \
		-p preset demo -p data synth -p out $(DEMO) \
		|| { echo "The demo stopped: $(DEMO)/pretrain.ipynb links to the cell at its top" >&2; exit 1; }
	@$(BIN)/asit-lab export "$(CURDIR)/$(DEMO)/pretrain.ipynb" >/dev/null
	@echo
	@echo "Made in $(DEMO):"
	@about() { test ! -e "$(DEMO)/$$1" || printf '  %-16s%s\n' "$$1" "$$2"; }; \
	about pretrain.html "the notebook with its pictures, for a browser"; \
	about pretrain.ipynb "the notebook as it ran"; \
	about config.yaml "the whole configuration of the run"; \
	about metrics.csv "losses and rates, step by step"; \
	about timings.csv "seconds and clips a second, step by step"; \
	about snapshots "weights of teacher, student and decoder over the run"; \
	about figures "the pictures of the notebook"; \
	about samples "clean, corrupted and reconstructed log-mels"; \
	about result.json "reconstruction errors and probe scores"
	@echo "Next: make lab, or your own recordings: .venv/bin/asit-lab pretrain --data folder:PATH --out runs/mine"

test: env ## Run the default tests (under three minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-all: env ## Run every test: the default ones, the slow ones, the notebooks, those in a browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not browser"
	@$(MAKE) --no-print-directory browser

browser: env ## Try the explorers in JupyterLab in Chromium (installed by apt-get where there is none)
	@$(find_chromium) || { $(install_chromium); }
	ASIT_LAB_SCREENSHOTS="$(SCREENSHOTS)" $(BIN)/python -m pytest -s -m browser tests/browser
	@echo "Screenshots: $(SCREENSHOTS)"

hear: env ## Check the HEAR interface by its public validator (TensorFlow, in .venv-hear; about 7 GB)
	@test -x $(HEAR)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(HEAR)
	$(UV) pip install --quiet --python $(HEAR)/bin/python -r tests/hear-requirements.txt -e .
	rm -rf $(HEAR)/run
	ASIT_LAB_HOME="$(CURDIR)" $(HEAR)/bin/asit-lab pretrain --preset smoke --out $(HEAR)/run
	TF_CPP_MIN_LOG_LEVEL=3 $(HEAR)/bin/hear-validator asit_lab.encoder.hear --model "$(CURDIR)/$(HEAR)/run"

transformers: env ## Check folders for transformers by AutoModel, without this package (in .venv-transformers)
	@test -x $(TRANSFORMERS)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(TRANSFORMERS)
	$(UV) pip install --quiet --python $(TRANSFORMERS)/bin/python -r tests/transformers-requirements.txt
	rm -rf $(TRANSFORMERS)/models
	$(BIN)/python tests/transformers_check.py write $(TRANSFORMERS)/models
	HF_HUB_OFFLINE=1 HF_MODULES_CACHE=$(TRANSFORMERS)/modules \
		$(TRANSFORMERS)/bin/python tests/transformers_check.py check $(TRANSFORMERS)/models

xares: env ## Check the X-ARES interface by its public validator (in .venv-xares)
	@test -x $(XARES)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(XARES)
	$(UV) pip install --quiet --python $(XARES)/bin/python -r tests/xares-requirements.txt -e .
	$(XARES)/bin/python tests/xares_check.py

lab: env ## Open JupyterLab, on copies of the notebooks in my_notebooks/
	$(BIN)/asit-lab lab

lint: env ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: env ## Put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: env ## Build the site, with notebooks and the reference of the Python interface, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "Site: site/index.html"

lock: $(UV) ## Renew requirements.lock from pyproject.toml
	$(UV) pip compile --quiet --upgrade $(LOCK_FLAGS) --output-file requirements.lock pyproject.toml

clean: ## Remove the demo run, caches and build leftovers (not .venv, data or other runs)
	rm -rf $(DEMO) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -path './.venv*' -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +

# --- Set-up ---------------------------------------------------------------------------------------------------------

# Prints the first interpreter that is new enough, not too new, and able to make an environment with pip in it.
PYTHONS := python3.12 python3.13 python3.11 python3 $(wildcard $(HOME)/.pyenv/versions/*/bin/python3)
define find_python
for python in $(or $(PYTHON),$(PYTHONS)); do \
	if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
		echo "$$python"; exit 0; \
	fi; \
done; \
echo "make env needs Python 3.11, 3.12 or 3.13 with venv and pip (on Debian: apt-get install python3 python3-venv)." >&2; \
for python in $(or $(PYTHON),$(PYTHONS)); do \
	echo "  $$python: $$("$$python" -c 'import sys; print("Python %d.%d" % sys.version_info[:2]); import ensurepip, venv' 2>&1 \
		| tail -n 1)" >&2; \
done; \
echo "Name another one with: make env PYTHON=/path/to/python3.12" >&2; \
exit 1
endef

# The names that tests/browser/lab_case.py looks for.
find_chromium = for name in chromium google-chrome google-chrome-stable chromium-browser chrome \
	"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do \
	command -v "$$name" >/dev/null && break; \
done

define install_chromium
sudo=$$(test "$$(id -u)" = 0 || echo sudo); \
if ! command -v apt-get >/dev/null; then \
	echo "make browser needs Chromium or Chrome, and finds neither; please install one." >&2; exit 1; \
fi; \
echo "There is no Chromium or Chrome: installing Debian's chromium by apt-get"; \
$$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium
endef

$(BIN)/python:
	@python=$$($(find_python)) || exit 1; \
	echo "Making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)

$(UV): | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.13,<1"

# uv takes exactly what the lock names, each file checked against its hash. The build of this package itself uses the
# locked setuptools, so that nothing outside the lock is fetched. All is compiled now, in half a minute: where Python may
# not write bytecode (PYTHONDONTWRITEBYTECODE), every process would do it again, in ten seconds.
$(STAMP): requirements.lock pyproject.toml | $(UV)
	$(UV) pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(UV) pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q asit_lab
	@touch $@
