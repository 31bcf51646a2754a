# ModelMeter. `make help` lists what there is.
#
# Set-up leaves a stamp or its own output behind for every step, so that a step runs again when what it is made
# from has changed, and not otherwise. No address of any mirror stands in here: apt, pip, uv and npm use what the
# machine has told them.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The commands start often, in tests above all: without compiled modules each start costs a second more.
unexport PYTHONDONTWRITEBYTECODE

# Where `make up` and `make demo` keep everything they store.
STATE ?= .modelmeter
# Their ports, where the usual ones are taken: make up PIPELINE_PORT=9780 ROUTER_PORT=9790 METRICS_PORT=0
PORTS = $(if $(PIPELINE_PORT),--pipeline-port $(PIPELINE_PORT)) $(if $(ROUTER_PORT),--router-port $(ROUTER_PORT)) \
	$(if $(METRICS_PORT),--metrics-port $(METRICS_PORT))
# `make up` and `make demo`: embedded (one process) or distributed (Kafka, PostgreSQL, workers; on loopback).
SHAPE ?= embedded
LOCAL_SETUP = $(if $(filter distributed,$(SHAPE)),setup-distributed)
# `make SYSTEM=ready ...` leaves the distribution's packages alone.
SYSTEM ?= install
# `make soak` and `make fuzz`: how long.
MINUTES ?= 10
# `make fuzz`: which target of tests/fuzz.
TARGET ?= all
# `make install`: where to, and below which folder (for packagers).
PREFIX ?= /usr/local
DESTDIR ?=

SETUP := .setup
BIN := .venv/bin
PYTHON_ENVIRONMENT = PYTHONPATH=packaging/local:.

# Targets that need the test and development packages on top of the runtime.
DEV_GOALS := setup-dev demo test test-kernels test-rust soak faults check bench lock openapi format
LEVEL := $(if $(filter fuzz,$(MAKECMDGOALS)),fuzz,$(if $(filter $(DEV_GOALS),$(MAKECMDGOALS)),dev,runtime))
ENVIRONMENT := $(SETUP)/environment-$(LEVEL)

# A stamp says nothing about an environment that has been deleted since.
ifeq ($(wildcard $(BIN)/python),)
$(shell rm -f $(SETUP)/environment-*)
endif

##@ Use

.PHONY: up
up: $(LOCAL_SETUP) setup ## Start sensor, pipeline and router on this machine; Ctrl-C stops them. STATE=/path SHAPE=distributed
	@$(PYTHON_ENVIRONMENT) exec $(BIN)/python -m mmlocal up --shape "$(SHAPE)" --state "$(STATE)" $(PORTS)

.PHONY: demo
demo: $(SETUP)/system-test $(LOCAL_SETUP) setup ## As up, with a local stand-in for the providers and real programs calling it: no API key needed
	@$(PYTHON_ENVIRONMENT) exec $(BIN)/python -m mmlocal demo --shape "$(SHAPE)" --state "$(STATE)" $(PORTS)

.PHONY: install
install: setup ## Install into PREFIX (/usr/local) with systemd units and configuration; DESTDIR=/path to stage
	@packaging/local/install.sh install "$(PREFIX)" "$(DESTDIR)"

.PHONY: uninstall
uninstall: ## Remove what `make install` put in place; configuration and data stay
	@packaging/local/install.sh uninstall "$(PREFIX)" "$(DESTDIR)"

##@ Develop

.PHONY: setup
setup: $(ENVIRONMENT) build ## Install what is missing, then build: packages, .venv, BPF objects, protobuf code, front end
	@$(if $(filter $@,$(MAKECMDGOALS)),echo "set up; next: make up or make demo")

.PHONY: setup-distributed
setup-distributed: $(SETUP)/kafka/complete setup ## The same, with PostgreSQL and a broker of Apache Kafka on top
	@$(if $(filter $@,$(MAKECMDGOALS)),echo "set up; next: make up SHAPE=distributed")

.PHONY: setup-dev
setup-dev: $(SETUP)/system-test $(SETUP)/kafka/complete setup ## The same, with what `make test` and `make check` need on top
	@$(if $(filter $@,$(MAKECMDGOALS)),echo "set up; next: make test")

.PHONY: test
test: setup-dev ## Run every test, the real capture tests included (needs root)
	@$(BIN)/pytest $(PYTEST_FLAGS)

.PHONY: test-kernels
test-kernels: setup-dev $(SETUP)/system-kernels ## Boot other kernels (Debian's, in QEMU) and run the load and capture tests in each
	@$(BIN)/python -m tests.kernels

.PHONY: test-rust
test-rust: setup-dev ## Hold the capture against rustls's functions for C (needs cargo 1.74 or newer; compiles for minutes)
	@$(BIN)/pytest -m rust $(PYTEST_FLAGS)

.PHONY: check
check: setup-dev ## Everything a change must pass besides the tests: format, lint, types, contracts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	MYPYPATH=packaging/local $(BIN)/mypy proto sensor pipeline router tests packaging/local
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run -Werror bpf/*.c bpf/*.h

.PHONY: format
format: setup-dev ## Put every file into the house format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/clang-format -i bpf/*.c bpf/*.h

.PHONY: bench
bench: setup-dev ## Measure: probe cost, sensor, router, ingest, dashboard queries (docs/performance.md)
	@set -e; for bench in $(sort $(basename $(notdir $(wildcard tests/bench/*_bench.py)))); do \
		echo "== $$bench"; $(PYTHON_ENVIRONMENT) $(BIN)/python -m "tests.bench.$$bench"; \
	done

.PHONY: soak
soak: setup-dev ## Capture at full rate while processes come and go, and look for leaks (needs root). MINUTES=10
	@$(BIN)/python -m tests.bench.soak --minutes $(MINUTES)

.PHONY: faults
faults: setup-dev ## Kill everything of the distributed shape at random, and hold the books against the truth (half an hour)
	@$(PYTHON_ENVIRONMENT) $(BIN)/python -m tests.faults kills
	@$(PYTHON_ENVIRONMENT) $(BIN)/python -m tests.faults away

.PHONY: fuzz
fuzz: setup-dev ## Search for inputs that break a decoder; what is found becomes a test. MINUTES=60 TARGET=all
	@$(BIN)/python -m tests.fuzz $(TARGET) --minutes $(MINUTES)

.PHONY: openapi
openapi: setup-dev ## Write docs/reference/openapi.json anew from the code
	@$(BIN)/python -m mmpipeline.api.openapi > docs/reference/openapi.json

.PHONY: lock
lock: setup-dev ## Resolve requirements/*.in anew into hash-locked requirements/*.txt
	@set -e; for name in uv runtime dev fuzz; do \
		packaging/local/uv.sh pip compile --quiet --universal --generate-hashes --no-header --upgrade \
			--python-version 3.11 requirements/$$name.in -o requirements/$$name.txt; \
	done

.PHONY: clean
clean: ## Remove everything that set-up and the tests have made; your data in STATE stays
	rm -rf .venv $(SETUP) node_modules dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf $(PROTO_OUTPUTS) $(BPF_OUTPUTS) $(ASSETS) $(RANKS)
	find proto sensor pipeline router tests packaging -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# What is built, and from what.

PROTOS := $(wildcard proto/mmproto/v1/*.proto)
PROTO_OUTPUTS := $(PROTOS:.proto=_pb2.py) $(PROTOS:.proto=_pb2.pyi)
BPF_SOURCES := $(wildcard bpf/*.bpf.c)
BPF_OUTPUTS := $(BPF_SOURCES:bpf/%.c=sensor/mmsensor/_bpf/%.o)
ASSETS := pipeline/mmpipeline/dashboard/static/vendor
RANKS := proto/mmproto/estimation/o200k_base.tiktoken

.PHONY: build
build: $(PROTO_OUTPUTS) $(BPF_OUTPUTS) $(SETUP)/assets

$(PROTO_OUTPUTS) &: $(PROTOS) requirements/runtime.txt | $(ENVIRONMENT)
	@echo "setup: protobuf code"
	@$(BIN)/python -m grpc_tools.protoc -I proto --python_out=proto --pyi_out=proto $(PROTOS)

$(BPF_OUTPUTS) &: $(wildcard bpf/*) | $(ENVIRONMENT)
	@echo "setup: BPF objects"
	@bpf/build.sh

ifneq ($(words $(wildcard $(ASSETS) $(RANKS))),2)
$(shell rm -f $(SETUP)/assets)
endif
$(SETUP)/assets: package.json package-lock.json pipeline/mmpipeline/dashboard/vendor.mjs packaging/local/ranks.mjs \
		| $(ENVIRONMENT)
	@echo "setup: front-end assets and the tokenizer's ranks"
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --ignore-scripts --loglevel=error >$(SETUP)/npm.log 2>&1 || \
		{ echo "setup: npm failed: $$(grep -m1 'npm error' $(SETUP)/npm.log) (all of it: $(SETUP)/npm.log)" >&2; exit 1; }
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm run --silent build >>$(SETUP)/npm.log 2>&1 || \
		{ echo "setup: $$(grep -m1 'npm error' $(SETUP)/npm.log) (all of it: $(SETUP)/npm.log)" >&2; exit 1; }
	@touch $@

$(SETUP)/environment-runtime: requirements/runtime.txt requirements/uv.txt pyproject.toml | $(SETUP)/system-runtime
	@packaging/local/environment.sh runtime
	@touch $@

$(SETUP)/environment-dev: requirements/dev.txt requirements/uv.txt pyproject.toml | $(SETUP)/system-runtime
	@packaging/local/environment.sh dev
	@touch $@ $(SETUP)/environment-runtime

$(SETUP)/environment-fuzz: requirements/fuzz.txt requirements/uv.txt pyproject.toml | $(SETUP)/system-runtime
	@packaging/local/environment.sh fuzz
	@touch $@ $(SETUP)/environment-dev $(SETUP)/environment-runtime

$(SETUP)/system-runtime: packaging/apt/runtime.txt packaging/local/system-packages.sh
	@mkdir -p $(SETUP)
	@$(if $(filter ready,$(SYSTEM)),:,packaging/local/system-packages.sh runtime)
	@touch $@

# After the runtime's, because apt works for one at a time.
$(SETUP)/system-test: packaging/apt/test.txt packaging/local/system-packages.sh | $(SETUP)/system-runtime
	@$(if $(filter ready,$(SYSTEM)),:,packaging/local/system-packages.sh test)
	@touch $@

$(SETUP)/system-distributed: packaging/apt/distributed.txt packaging/local/system-packages.sh | $(SETUP)/system-runtime
	@$(if $(filter ready,$(SYSTEM)),:,packaging/local/system-packages.sh distributed)
	@touch $@

# The stamp goes with the folder.
$(SETUP)/kafka/complete: packaging/kafka/pom.xml | $(SETUP)/system-distributed
	@echo "setup: Apache Kafka"
	@rm -rf $(@D) && mkdir -p $(@D)
	@mvn -q -B -f $< dependency:copy-dependencies -DoutputDirectory="$(CURDIR)/$(@D)" >$(SETUP)/maven.log 2>&1 || \
		{ echo "setup: Maven failed: $$(grep -m1 ERROR $(SETUP)/maven.log) (all of it: $(SETUP)/maven.log)" >&2; exit 1; }
	@touch $@

# QEMU is nothing that the other targets need.
$(SETUP)/system-kernels: packaging/apt/kernels.txt packaging/local/system-packages.sh | $(SETUP)/system-test
	@$(if $(filter ready,$(SYSTEM)),:,packaging/local/system-packages.sh kernels)
	@touch $@
