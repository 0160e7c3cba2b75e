# Everything starts here. `make help` lists what there is.
PYTHON   ?= python3
PROFILE  ?= pilot
DATASETS ?= Datasets
WEIGHTS  ?=
TRACK    ?=
TORCH    ?=
VENV     := .venv
LOCK     := $(if $(filter cpu,$(TORCH)),requirements-cpu-torch.lock,requirements.lock)

# Names that a person chose reach the shell through the environment, as they are: with spaces, quotes, dollars.
export OF_PROFILE  := $(value PROFILE)
export OF_DATASETS := $(value DATASETS)
export OF_WEIGHTS  := $(value WEIGHTS)
ifdef TRACK
export MMFAKES_TRACK := $(value TRACK)
endif

ifneq (,$(findstring :,$(CURDIR)))
$(error The path of this folder has a colon, which separates the folders of PATH: $(CURDIR). Move or rename it)
endif

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export HF_HUB_OFFLINE ?= 1
export WDS_SECURE = 1
export TOKENIZERS_PARALLELISM = false
export PYTHONHASHSEED = 0
export PYDEVD_DISABLE_FILE_VALIDATION = 1
export ORT_DISABLE_TELEMETRY = 1

.DEFAULT_GOAL := help
.PHONY: help setup setup-bench setup-docs export settings pilot run quick app tutorial compare plots test matrix check check-notebooks check-code check-files check-settings lock lock-cpu lock-bench lock-docs lab readme book docs docs-serve bench bench-gpu bench-serve deploy-lock deploy-licences deploy-lint deploy-proxy deploy-rehearse clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/bin/uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, this is {v.major}.{v.minor}. Name one: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv

INSTALL = $(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python

$(VENV)/.ready: $(LOCK) pyproject.toml | $(VENV)/bin/uv
	$(INSTALL) $(if $(TORCH),--torch-backend $(TORCH)) --require-hashes -r $(LOCK)
	$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

setup: $(VENV)/.ready  ## the environment, from hashed versions; TORCH=cpu for a machine without a GPU

$(VENV)/.ready-bench: $(VENV)/.ready bench/requirements.lock
	$(INSTALL) --no-deps --require-hashes -r bench/requirements.lock
	@touch $@

setup-bench: $(VENV)/.ready-bench

$(VENV)/docs/.ready: docs/requirements.lock | $(VENV)/bin/uv
	$(VENV)/bin/uv venv --quiet --clear --python $(VENV)/bin/python $(VENV)/docs
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/docs/bin/python --no-deps --require-hashes -r docs/requirements.lock
	@touch $@

setup-docs: setup $(VENV)/docs/.ready

export: setup  ## notebooks to library
	@nbdev_export

settings: export  ## comments of params.yaml and of parameters cells, conf/params.schema.json: from the schemas
	@python -m multimodal_fakes.line settings
	@nbdev_clean

MAKERS = clips pilot checklists

pilot: export  ## the embedded pilot datasets and their checklists
	@$(MAKE) --no-print-directory --jobs $(words $(MAKERS)) $(MAKERS:%=made-by-%)

made-by-%:      # at the same time: what each does alone leaves cores idle
	@python -m multimodal_fakes.pilots.$* Datasets

IN_WORK = cd "$$work" && python -m multimodal_fakes.line reproduce && python -m multimodal_fakes report

ifeq ($(OF_PROFILE),pilot)
run: pilot  ## raw posts to calibrated detectors; PROFILE=real DATASETS=… for other data; TRACK=mlflow to track
	python -m multimodal_fakes.line reproduce
	@python -m multimodal_fakes report
else
run: export setup-bench
	@work=$$(python -m multimodal_fakes.line workspace "$$OF_PROFILE" "$$OF_DATASETS" "$$OF_WEIGHTS") && $(IN_WORK)
endif

quick: export  ## one detector, of the pilot's headlines, in a few minutes: runs/headlines
	@python -m multimodal_fakes.pilots.pilot Datasets --dataset pilot_clickbait
	@work=$$(python -m multimodal_fakes.line workspace headlines Datasets) && $(IN_WORK)

app: setup  ## the page, http://127.0.0.1:8501: judge posts with the detectors of models/, or with the one of `make quick`
	@work=.; ls models/*/detector.json >/dev/null 2>&1 || work=runs/headlines; exec mmfakes app --project $$work

tutorial: export  ## what docs/tutorial.md lets one type, from 500 postcards to a served detector: runs/own
	@python docs/check.py tutorial

COLUMNS_APART = ^(Created$$|Step_|models/|conf/|conf\.|facts\.|Datasets|(scan|prepare|ocr|shard|facts|expert|fusion|calibrate|report|export|robustness|search)$$)

compare: setup  ## this workspace beside the experiments of `dvc exp run`: what was changed, and the headline of each task
	@dvc exp show --no-pager --only-changed --drop '$(COLUMNS_APART)'

plots: setup  ## curves and confusion tables of this workspace as one page that needs no network
	@python -m multimodal_fakes.line scan
	@dvc plots show

test: setup  ## every notebook's tests
	@rm -rf _scratch
	nbdev_test --n_workers 2 --do_print --timing

matrix: setup  ## each extra from the built wheel in an environment of its own, with the detectors of models/; ONLY="base serve"
	@python .ci/matrix.py models $(if $(ONLY),--only $(ONLY))

check: check-notebooks check-code check-files check-settings  ## notebooks are clean, the library is what they export, all reads as it should, settings can be used

check-notebooks: setup
	@nbdev_clean && nbdev_export && git diff --exit-code -- nbs multimodal_fakes

check-code: setup
	@ruff check nbs multimodal_fakes bench deploy docs .ci
	@mypy
	@python .ci/house.py

check-files: setup
	@python .ci/files.py

check-settings: setup
	@python .ci/settings.py

lab: setup  ## JupyterLab on this project; it prints its address
	jupyter lab --notebook-dir=nbs --no-browser $(if $(filter 0,$(shell id -u)),--allow-root)

readme: setup  ## README.md from nbs/index.ipynb
	@bash -c 'cd nbs && jupyter nbconvert --log-level=ERROR --to markdown --no-input --output-dir .. --output README index.ipynb'

DOCS_MADE = python docs/pages.py _docs/made
MKDOCS = NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(VENV)/docs/bin/mkdocs

docs: setup-docs  ## the documents as pages that need no network, checked: _docs/site
	@$(DOCS_MADE) && python docs/check.py commands
	@$(MKDOCS) build --strict && python docs/check.py site
	@echo "open _docs/site/index.html"

docs-serve: setup-docs  ## the documents while they are written, on http://127.0.0.1:8009
	@$(DOCS_MADE)
	@$(MKDOCS) serve --dev-addr 127.0.0.1:8009

book: setup  ## run every notebook by hand, as it were, and keep its pictures
	jupyter nbconvert --log-level=WARN --to notebook --execute --inplace nbs/[0-9]*.ipynb nbs/*/[0-9]*.ipynb
	@python .ci/book.py && nbdev_clean

bench: setup-bench  ## measure against peers, write bench/results.json
	python -m bench

bench-gpu: setup-bench  ## end-to-end fine-tuning on this machine's GPU
	python -m bench gpu

bench-serve: setup-bench  ## the service beside its peers, under load, among hostile input
	python -m bench serve

COMPILE = uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
EVERYTHING = pyproject.toml --extra all --extra dev --universal

lock: | $(VENV)/bin/uv  ## requirements.lock from pyproject.toml, for Linux and macOS; a version that still fits stays
	$(COMPILE) $(EVERYTHING) -o requirements.lock

lock-cpu: | $(VENV)/bin/uv  ## the same versions with torch for CPUs alone, from PyTorch's own index
	$(COMPILE) $(EVERYTHING) --constraint requirements.lock --torch-backend cpu -o requirements-cpu-torch.lock

requirements-cpu-torch.lock:      # where nobody has made it yet
	@$(MAKE) --no-print-directory lock-cpu

lock-docs: | $(VENV)/bin/uv  ## versions of what builds the documents, from requirements.lock
	$(COMPILE) docs/requirements.in --constraint requirements.lock --universal -o docs/requirements.lock

lock-bench: | $(VENV)/bin/uv  ## versions of the benches, from requirements.lock
	$(COMPILE) bench/requirements.in --constraint requirements.lock --override bench/overrides.txt --universal -o bench/requirements.lock

# deploy/pyproject.toml says for which machines. MLflow's server does not take all of our versions: a version of ours stays where it fits
DEPLOY_LOCK = cd deploy && $(COMPILE) --universal --constraint ../requirements.lock

deploy-lock: setup  ## versions of the images, from requirements.lock
	$(DEPLOY_LOCK) requirements-av.in -o requirements-av.lock
	$(DEPLOY_LOCK) requirements-build.in -o requirements-build.lock
	$(DEPLOY_LOCK) requirements-cpu.in -o requirements-cpu.lock
	$(DEPLOY_LOCK) requirements-cuda.in -o requirements-cuda.lock
	$(DEPLOY_LOCK) ../pyproject.toml $(foreach extra,pipeline track postgres gs s3 app,--extra $(extra)) -o requirements-train.lock
	cp requirements.lock deploy/requirements-mlflow.lock && cd deploy && $(COMPILE) --universal requirements-mlflow.in -o requirements-mlflow.lock

LICENCES = _scratch/licences

deploy-licences: setup  ## licences of what the images hold, from environments made of their locks (6 GB)
	@for image in cpu cuda mlflow; do \
	  uv venv --quiet --clear --python 3.11 $(LICENCES)/$$image && \
	  uv pip install --quiet --no-deps --require-hashes --python $(LICENCES)/$$image/bin/python -r deploy/requirements-$$image.lock || exit 1; \
	done
	python deploy/licences.py $(foreach image,cpu cuda mlflow,$(image)=$(LICENCES)/$(image)/lib/python3.11/site-packages)

deploy-lint: setup-bench  ## Dockerfiles, compose, Kubernetes and cloud manifests, workflows through their linters
	hadolint --failure-threshold style deploy/Dockerfile.*
	yamllint --strict -c deploy/.yamllint deploy .github/workflows .pre-commit-config.yaml
	check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	check-jsonschema --builtin-schema vendor.cloudbuild deploy/clouds/cloudbuild.yaml
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml
	kubernetes-validate --strict deploy/minikube/volume.yaml $(filter-out %/kustomization.yaml %/copies/deployment.yaml,$(wildcard deploy/k8s/base/*.yaml deploy/k8s/copies/*.yaml deploy/k8s/retrain/*.yaml))
	@mkdir -p _scratch
	@if command -v kubectl >/dev/null; then for manifests in deploy/k8s deploy/k8s/copies deploy/k8s/gpu deploy/k8s/retrain deploy/minikube; do kubectl kustomize $$manifests > _scratch/k8s.yaml && kubernetes-validate --strict _scratch/k8s.yaml || exit 1; done; else echo "kubectl is not here: the manifests were not put together"; fi
	@if docker compose version >/dev/null 2>&1; then docker compose -f deploy/compose.yaml $(foreach profile,postgres gpu mlflow train page,--profile $(profile)) config --quiet; else echo "docker compose is not here: compose.yaml was held against its schema only"; fi
	@if command -v promtool >/dev/null; then promtool check rules deploy/alerts.yaml; else echo "promtool is not here: alerts.yaml was held against the names of the metrics only"; fi
	python deploy/check.py
	python deploy/proxy.py

IMAGE = cpu
MODELS = models
REHEARSAL = /var/tmp/mmfakes_rehearsal

deploy-proxy: setup  ## nginx.conf before a service on loopback: who the client is, forged addresses, large bodies, a restart; MODELS=…
	python deploy/proxy.py --models $(MODELS)

deploy-rehearse: setup  ## build an image step by step and run it, without Docker: IMAGE=cuda, train or mlflow, MODELS=… REHEARSAL=a folder on disk; needs root
	python deploy/rehearse.py deploy/Dockerfile.$(IMAGE) --models $(MODELS) --scratch $(REHEARSAL) $(REHEARSE)

clean:  ## remove the environment, scratch, caches and results, not Datasets
	rm -rf $(VENV) _scratch _docs .cache runs
	git clean -fdXq Step_1 Step_2 Step_3 Step_4 Step_5 models
