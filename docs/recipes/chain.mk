# From warps to deblended footprints with make, one patch of sky.
#
#     make -j4 -f docs/recipes/chain.mk BANDS="g r i z y" WARPS='warps/{band}/*.fits' OUT=patch42
#
# or, in a Makefile of your own: set the variables, then include this file. Touch or add a warp or
# change an option, and only what depends on it is made again; an interrupted step leaves no target.

# Bands, the one with the most trusted positions first: peaks of a later band that lie close to
# one of an earlier band are taken for the same source.
BANDS   ?= i r g
# Where the warps of a band are; {band} stands for its name.
WARPS   ?= warp_{band}_*.fits
OUT     ?= out
COBLEND ?= coblend
# coadd, or matched to detect on PSF-matched coadds.
DETECT_ON ?= coadd
# The PSF that psf-match gives to every band.
REFERENCE ?= gaussian:fwhm=6,size=41

# Options of every step, e.g. OPTIONS=-q, and of each,
# e.g. DEBLEND_OPTIONS="--jobs 4 --set max_iter=500"
OPTIONS             ?=
COADD_OPTIONS       ?= --unit nJy
MATCH_OPTIONS       ?=
DETECT_OPTIONS      ?=
MERGE_OPTIONS       ?=
DEBLEND_OPTIONS     ?=
RECONSTRUCT_OPTIONS ?=
# Options in a file; when it changes, everything is made again.
OPTIONS_FILE ?= $(wildcard coblend.toml)

COADDS  := $(BANDS:%=$(OUT)/coadd_%.fits)
MATCHED := $(BANDS:%=$(OUT)/matched_%.fits)
DETS    := $(BANDS:%=$(OUT)/det_%.fits)
LISTS   := $(BANDS:%=$(OUT)/warps_%.txt)

# The commands replace an old output only when the new one is complete.
export COBLEND_OVERWRITE := 1

.DELETE_ON_ERROR:
.PHONY: chain matched FORCE
chain: $(OUT)/footprints.fits $(MATCHED)
matched: $(MATCHED)

# The list of a band's warps is rewritten when a warp appears or goes, so that make notices.
warps_of = $(sort $(wildcard $(subst {band},$(1),$(WARPS))))
known_of = $(shell cat $(OUT)/warps_$(1).txt 2>/dev/null)
define BAND_INPUTS
$(OUT)/coadd_$(1).fits: $(call warps_of,$(1))
ifneq ($(strip $(call warps_of,$(1))),$(strip $(call known_of,$(1))))
$(OUT)/warps_$(1).txt: FORCE
endif
endef
$(foreach band,$(BANDS),$(eval $(call BAND_INPUTS,$(band))))

$(LISTS): $(OUT)/warps_%.txt:
	@mkdir -p $(@D)
	@test -n "$(call warps_of,$*)" || { echo "no warps of band $*: $(subst {band},$*,$(WARPS))" >&2; exit 1; }
	@printf '%s\n' $(call warps_of,$*) > $@

# What each step depends on besides files is kept in a file of its own, rewritten when it changes.
COADD_STAMP       = $(COADD_OPTIONS)
MATCH_STAMP       = $(REFERENCE) $(MATCH_OPTIONS)
DETECT_STAMP      = $(DETECT_ON) $(DETECT_OPTIONS)
MERGE_STAMP       = $(BANDS) $(MERGE_OPTIONS)
DEBLEND_STAMP     = $(DEBLEND_OPTIONS)
RECONSTRUCT_STAMP = $(RECONSTRUCT_OPTIONS)
STEPS  := COADD MATCH DETECT MERGE DEBLEND RECONSTRUCT
STAMPS := $(STEPS:%=$(OUT)/.options_%)
define STEP_OPTIONS
ifneq ($$(strip $$($(1)_STAMP)),$$(strip $$(shell cat $(OUT)/.options_$(1) 2>/dev/null)))
$(OUT)/.options_$(1): FORCE
endif
endef
$(foreach step,$(STEPS),$(eval $(call STEP_OPTIONS,$(step))))

$(STAMPS): $(OUT)/.options_%:
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(strip $($*_STAMP)))' > $@

$(COADDS): $(OUT)/coadd_%.fits: $(OUT)/warps_%.txt $(OUT)/.options_COADD $(OPTIONS_FILE)
	$(COBLEND) assemble-coadd @$< -o $@ $(OPTIONS) $(COADD_OPTIONS)

$(MATCHED): $(OUT)/matched_%.fits: $(OUT)/coadd_%.fits $(OUT)/.options_MATCH $(OPTIONS_FILE)
	$(COBLEND) psf-match $< -o $@ --reference $(REFERENCE) $(OPTIONS) $(MATCH_OPTIONS)

$(DETS): $(OUT)/det_%.fits: $(OUT)/$(DETECT_ON)_%.fits $(OUT)/.options_DETECT $(OPTIONS_FILE)
	$(COBLEND) detect $< -o $@ $(OPTIONS) $(DETECT_OPTIONS)

$(OUT)/merged.fits: $(DETS) $(OUT)/.options_MERGE $(OPTIONS_FILE)
	$(COBLEND) merge-detections $(DETS) -o $@ $(OPTIONS) $(MERGE_OPTIONS)

$(OUT)/deblended.fits: $(OUT)/merged.fits $(COADDS) $(OUT)/.options_DEBLEND $(OPTIONS_FILE)
	$(COBLEND) deblend $< $(COADDS) -o $@ $(OPTIONS) $(DEBLEND_OPTIONS)

$(OUT)/footprints.fits: $(OUT)/deblended.fits $(COADDS) $(OUT)/.options_RECONSTRUCT $(OPTIONS_FILE)
	$(COBLEND) reconstruct-footprints $< $(COADDS) -o $@ --heavy '$(OUT)/heavy_{band}.fits' \
	    --residual '$(OUT)/residual_{band}.fits' $(OPTIONS) $(RECONSTRUCT_OPTIONS)
