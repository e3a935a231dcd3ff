# make demo: install into .venv, run the chain on sample_data, compare with the truth
# make test: the same environment, the tests

PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin

.PHONY: help demo test lint sample clean

help:
	@echo 'make demo   install into $(VENV), run the chain on sample_data, compare with the truth'
	@echo 'make test   install into $(VENV), run the tests'
	@echo 'make lint   style and types'
	@echo 'make chain  warps to footprints: WARPS=... BANDS=... OUT=... (docs/recipes/chain.mk)'
	@echo 'make sample make sample_data again'
	@echo 'make clean  remove $(VENV), out and caches'

# -- the chain; the values are those of the demo, replace any: make chain WARPS='my/{band}_*.fits'

BANDS   ?= i r g
WARPS   ?= sample_data/warp_{band}_*.fits
OUT     ?= out/demo
COBLEND ?= $(BIN)/coblend
# The masks of the warps show cosmic rays and the satellite, so no clipping is needed: a plain
# weighted mean is linear, and its noise and PSF are exactly what the coadd says.
COADD_OPTIONS ?= --unit nJy --statistic mean --bad-planes NO_DATA,BAD,SAT,EDGE,CR,STREAK
# The demo needs no empty apertures ("sky objects") for tests of the background.
MERGE_OPTIONS ?= --sky-objects 0
include docs/recipes/chain.mk

$(COADDS): | $(if $(findstring $(BIN),$(COBLEND)),$(VENV)/installed)

# -- environment

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'coblend needs Python 3.11 or newer; say which: make PYTHON=python3.12' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	rm -rf build *.egg-info
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

$(VENV)/linters: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# -- what people run

demo: chain
	@$(BIN)/python sample_data/compare.py $(OUT) sample_data/truth.fits
	@echo
	@echo 'Files in $(OUT), plain FITS (what is in one: $(COBLEND) info FILE):'
	@echo '  coadd_<band>.fits       deep exposures'
	@echo '  matched_<band>.fits     the same with one common PSF'
	@echo '  merged.fits             parents and peaks found in any band'
	@echo '  deblended.fits          models of every blended object'
	@echo '  footprints.fits         catalogue with the flux of every object in every band'
	@echo '  heavy_<band>.fits       pixels of every object'
	@echo '  residual_<band>.fits    what the models leave'
	@if $(BIN)/python -c 'import matplotlib' 2>/dev/null; then \
	    $(COBLEND) show scene $(OUT)/deblended.fits $(COADDS) -o $(OUT)/scene.png -q --overwrite && \
	    echo '  scene.png               observed, models, residual'; \
	else echo 'For a picture: $(BIN)/python -m pip install matplotlib; make demo'; fi

test: $(VENV)/installed
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

# mypy must not run here: it would take the folder io for the standard library's module.
lint: $(VENV)/linters
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd src && $(abspath $(BIN))/mypy --config-file ../pyproject.toml -p coblend

sample: $(VENV)/installed
	SOURCE_DATE_EPOCH=0 $(BIN)/coblend simulate sample_data --seed 1 --overwrite

clean:
	rm -rf $(VENV) out build *.egg-info .pytest_cache .ruff_cache .mypy_cache src/.mypy_cache
