# Everything a newcomer types. Needs Python 3.11 to 3.13 and make; the rest is fetched.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
unexport VIRTUAL_ENV

PYTHON ?= python3
UV := $(or $(shell uv --version >/dev/null 2>&1 && command -v uv),.uv/bin/uv)
RUN := $(UV) run --no-sync
PARAM = $(shell sed -n 's/^$(1): *//p' params.yaml)
REPORT = reports/$(call PARAM,name)/b$(call PARAM,base_res)

.PHONY: help
help: ## List the targets
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
		|| grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST)

.PHONY: reproduce
reproduce: .venv/.synced ## Run every stage that is out of date, then say where tables and pictures are
	$(RUN) dvc repro
	@echo
	@echo 'Tables, curves and pictures:  $(REPORT)/index.html  (or $(REPORT)/report.md)'
	@echo 'Numbers for other programs:   metrics.json, $(REPORT)/results.csv'
	@echo 'Compare runs in MLflow:       make ui'
	@echo
	@$(RUN) python -m pagoda.results.committed $(REPORT)

# 'speed' measures times and has the machine for itself; then JOBS of the others at once, each with its
# share of the cores.
JOBS ?= 1
CORES = $(shell getconf _NPROCESSORS_ONLN)
THREADS = $(shell expr $(CORES) / $(JOBS) \| 1)
STUDIES = $(filter-out speed,$(patsubst experiments/%/dvc.yaml,%,$(wildcard experiments/*/dvc.yaml)))
REPRO_STUDY = $(RUN) dvc --cd experiments --wait-for-lock repro -k

define EVERY_STUDY
	$(REPRO_STUDY) speed/dvc.yaml; speed=$$?; printf '%s/dvc.yaml\n' $(STUDIES) \
		| OMP_NUM_THREADS=$(THREADS) OPENBLAS_NUM_THREADS=$(THREADS) xargs -P $(JOBS) -n 1 $(REPRO_STUDY) \
		&& exit $$speed
endef

.PHONY: studies
studies: reproduce ## Run every study too, JOBS (1) at once; what fails does not stop the others
	$(EVERY_STUDY)

.PHONY: evidence
evidence: .venv/.synced ## Choose the profile PROFILE (evidence: five seeds) and run it and every study
	$(RUN) pagoda derive --profile $(or $(PROFILE),evidence)
	$(RUN) dvc repro
	$(EVERY_STUDY)

PYTEST = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(RUN) pytest -n auto --maxprocesses 8 --dist worksteal

.PHONY: test
test: .venv/.synced ## Run the tests, without those that take some seconds each
	$(PYTEST)

.PHONY: test-longer
test-longer: .venv/.synced ## Run the tests that test leaves out: studies, several processes, long counts
	$(PYTEST) -m longer

.PHONY: lint
lint: .venv/.synced ## Check style and formatting
	$(RUN) ruff check
	$(RUN) ruff format --check

.PHONY: types
types: .venv/.synced ## Check types
	$(RUN) mypy

.PHONY: imports
imports: .venv/.synced ## Check that imports point down
	$(RUN) lint-imports

# DVC has no setting for the columns of its table (some 400: parameters, metrics, dependencies).
.PHONY: experiments
experiments: .venv/.synced ## List experiments: distances, and the parameters that differ
	$(RUN) dvc exp show --only-changed --keep 'resolution\.[0-9]+\.(fd|fid)_(?!test)' \
		--drop 'final|student|resolution|growth|code\.|pagoda/|runs/|reports/|weights/' $(SHOW)

.PHONY: dag
dag: .venv/.synced ## Draw the pipeline, a box a stage
	@$(RUN) dvc dag --dot | $(RUN) python -m pagoda.pipeline.dag

.PHONY: ui
ui: .venv/.synced ## Browse the tracked runs
	@case "$$MLFLOW_TRACKING_URI" in http://* | https://*) \
		echo "MLFLOW_TRACKING_URI is a server, it shows the runs itself:" \
			"$$(echo "$$MLFLOW_TRACKING_URI" | sed 's|//.*@|//|')" ;; \
	*) MLFLOW_DISABLE_TELEMETRY=$${MLFLOW_DISABLE_TELEMETRY-true} $(RUN) mlflow ui \
		--app-name pagoda --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}" ;; esac

.PHONY: docs
docs: .venv/.synced ## Build the documentation in site/, and check its links
	$(RUN) mkdocs build --strict --quiet

.PHONY: smoke-profile
smoke-profile: .venv/.synced ## Publish params.yaml, tuned by hand, as the profile smoke
	$(RUN) python -c 'import pathlib, pagoda.pipeline.derive as d; d.save("params.yaml", "smoke", pathlib.Path())'

.PHONY: clean
clean: ## Remove runs, scratch and caches of tools; 'dvc checkout' brings the runs back
	rm -rf runs experiments/runs .scratch .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/.synced: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --compile-bytecode
	@touch $@

# A private uv where there is none. Where the system's Python cannot make a virtual environment,
# --target installs it all the same.
.uv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'error: $(PYTHON) is missing or older than 3.11; try make PYTHON=PATH ...'; exit 1; }
	$(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet uv \
		|| { rm -rf .uv; $(PYTHON) -m pip install --quiet --target .uv uv; } \
		|| { rm -rf .uv; echo 'error: cannot install uv; see https://docs.astral.sh/uv'; exit 1; }
	@echo '*' > .uv/.gitignore
