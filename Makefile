# Kestrel's commands. `make demo` and `make test` do all the set-up by themselves on Debian 12.
# Paths stay relative: the checkout's folder may hold spaces.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help setup setup-test demo test test-all lint format bench docs package clean

PYTHON := .venv/bin/python
# QGIS's own Python modules; QgsApplication.pkgDataPath() says the same on Debian.
QGIS_DATA ?= /usr/share/qgis
PYTEST := PYTHONPATH=$(QGIS_DATA)/python/plugins:$(QGIS_DATA)/python QT_QPA_PLATFORM=offscreen OMP_NUM_THREADS=1 $(PYTHON) -m pytest
SCENE ?=

help:
	@echo "make demo [SCENE=path]  detect ships on a simulated SAR scene, or on yours, through qgis_process"
	@echo "make test               set up and run the tests (without the slow ones)"
	@echo "make test-all           the slow ones too"
	@echo "make lint               ruff and mypy"
	@echo "make bench              the measured claims of benchmarks/README.md"
	@echo "make docs               write docs/algorithms/ from the help texts of the dialogs"
	@echo "make package            make and check the plugin zip and the weight packs in build/package/"

setup:
	@scripts/setup run

setup-test:
	@scripts/setup test

demo: setup
	@$(PYTHON) scripts/demo.py "$(SCENE)"

test: setup-test
	@$(PYTEST) -m "not slow"

test-all: setup-test
	@$(PYTEST)

lint: setup-test
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@MYPYPATH=.kestrel/python $(PYTHON) -m mypy -p kestrel.engine -p kestrel.models

format: setup-test
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

bench: setup-test
	@$(PYTHON) benchmarks/run.py

docs: setup
	@$(PYTHON) scripts/make_docs.py
	@$(PYTHON) scripts/make_cards.py

package: setup-test
	@$(PYTHON) scripts/package.py

clean:
	rm -rf build .kestrel/qgis
