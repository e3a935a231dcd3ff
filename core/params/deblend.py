"""Options of `coblend deblend`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from coblend.core.params.field import Checked, option

_LIBRARY: Mapping[str, Any] = {
    "start": "reference", "optimizer": "adaprox", "edge": "zero", "noise_stat": "mean",
    "stats_mask": (), "spectrum_step": 1.0, "gradient_floor": 0.0, "rescale_spectra": False,
    "min_iter": 15, "resize_every": 10, "patience": 1, "flux_tol": 0.0, "final_spectra": False,
    "kernel_reg": 0.0, "flux_err_floor": 0.0, "split": "never", "single_psf_flux": False,
    "wing_radius": 0,
}  # fmt: skip
"""The reference system's library at its own defaults, faults included."""


@dataclass(frozen=True, slots=True)
class DeblendParams(Checked):
    """How parents are split into their sources."""

    # fmt: off
    algorithm: str = option("scarlet", "Fit all bands together, or share the light of each band "
                            "on its own with symmetric templates", choices=("scarlet", "sdss"),
                            shown=True)
    heavy: str = option("", "With sdss: write the light of every object to this file, e.g. "
                        "'{band}.heavy.fits'")
    edge_handling: str = option("ramp", "With sdss: templates at the border of a parent are "
                                "continued by the PSF's fall, cut, or completed by the image",
                                choices=("ramp", "clip", "noclip"), alias="edgeHandling")
    stray_flux: str = option("trim", "With sdss: who gets the light that no template reaches: "
                             "nobody, or all by their distance, or the nearest",
                             choices=("trim", "r-to-peak", "r-to-footprint", "nearest-footprint"),
                             alias="strayFluxRule")
    stray_to_stars: str = option("necessary", "Whether stars get stray light, too",
                                 choices=("necessary", "always", "never"),
                                 alias="strayFluxToPointSources")
    stray_least: float = option(0.001, "Smaller shares of stray light are dropped", minimum=0,
                                maximum=1, alias="clipStrayFluxFraction")
    weight_templates: bool = option(False, "With sdss: scale the templates of a parent so that "
                                    "they add up to its image", alias="weightTemplates")
    remove_degenerate: bool = option(False, "With sdss: drop one of two templates that are alike",
                                     alias="removeDegenerateTemplates")
    max_template_cosine: float = option(0.5, "Templates are alike beyond this cosine", minimum=0,
                                        maximum=1, alias="maxTempDotProd")
    max_iter: int = option(300, "Most iterations per blend; 0: the initial model", minimum=0,
                           shown=True, alias="maxIter")
    min_iter: int = option(5, "Fewest iterations per blend", minimum=0, alias="minIter")
    relative_error: float = option(1e-3, "Stop when the log-likelihood changes by less than this "
                                   "fraction per iteration; with accelerated steps stricter in "
                                   "blends of many sources, laxer after 12 iterations",
                                   minimum=0, shown=True, alias="relativeError")
    background_thresh: float = option(0.25, "Model pixels below this are dropped", unit="sigma",
                                      minimum=0, shown=True, alias="backgroundThresh")
    initial_background_thresh: float = option(0.5, "Pixels of the models that the fit starts "
                                              "from are dropped below this", unit="sigma",
                                              minimum=0, alias="initialBackgroundThresh")
    min_snr: float = option(50.0, "Signal-to-noise ratio per component; twice this gives two",
                            minimum=0, shown=True, alias="minSNR")
    process_singles: bool = option(False, "Also fit parents with a single peak", shown=True,
                                   alias="processSingles")
    single_psf_flux: bool = option(True, "Give isolated sources, which are not fitted, a PSF flux "
                                   "as model flux")
    max_number_of_peaks: int = option(600, "Most peaks of a parent that is fitted; 0: no limit",
                                      minimum=0, shown=True, alias="maxNumberOfPeaks")
    crowded: str = option("skip", "What to do with parents of more peaks: skip them, or fit every "
                          "peak as a point source", choices=("skip", "psf"), shown=True)
    split: str = option("auto", "Fit a parent in parts, cut where its deconvolved image is dark; "
                        "auto: beyond joint_max_peaks or joint_max_area",
                        choices=("auto", "always", "never"))
    joint_max_peaks: int = option(200, "Most peaks that are fitted jointly", minimum=1)
    joint_max_area: int = option(1_000_000, "Largest bounding box that is fitted jointly",
                                 unit="pixel**2", minimum=1)
    split_thresh: float = option(5.0, "Deconvolved light below half of this is dark", unit="sigma",
                                 minimum=0, alias="footprintSNRThresh")
    split_grow: int = option(2, "Growth of the bright regions of the deconvolved image",
                             unit="pixel", minimum=0, alias="growSize")
    split_min_area: int = option(9, "Smaller bright regions of the deconvolved image are dark",
                                 unit="pixel**2", minimum=0, alias="minDeconvolvedArea")
    coupling_passes: int = option(2, "Passes over the parts of a parent after the first; "
                                  "0: each part as if there were no others",
                                  minimum=0)
    max_footprint_area: int = option(2_000_000, "Skip parents with a larger bounding box; "
                                     "0: no limit", unit="pixel**2", minimum=0, shown=True,
                                     alias="maxFootprintArea")
    max_footprint_size: int = option(0, "Skip parents with a longer side; 0: no limit",
                                     unit="pixel", minimum=0, alias="maxFootprintSize")
    min_footprint_axis_ratio: float = option(0.0, "Skip parents more elongated than this; 0: no "
                                             "limit", minimum=0, maximum=1,
                                             alias="minFootprintAxisRatio")
    max_area_times_peaks: int = option(1_000_000_000, "Skip parents whose box area times peaks "
                                       "is larger; 0: no limit", minimum=0,
                                       alias="maxAreaTimesPeaks")
    max_blend_memory: float = option(512.0, "Fit parents that would need more in parts, skip "
                                     "those whose images alone do; 0: no limit", unit="Mbyte",
                                     minimum=0)
    mask_limits: tuple[str, ...] = option((), "Skip parents with a larger fraction of pixels in a "
                                          "mask plane: PLANE=FRACTION", alias="maskLimits")
    bad_mask: tuple[str, ...] = option(("BAD", "NO_DATA", "SAT", "SUSPECT", "EDGE"),
                                       "Mask planes whose pixels have no weight", shown=True,
                                       alias="badMask")
    stats_mask: tuple[str, ...] = option(("SAT", "INTRP", "NO_DATA"), "Mask planes whose pixels "
                                         "do not count for the noise of a band",
                                         alias="statsMask")
    pseudo_columns: tuple[str, ...] = option(("merge_peak_sky", "merge_footprint_sky",
                                              "sky_source"), "Columns of PEAKS or PARENTS that "
                                             "mark what is not to be fitted",
                                             alias="pseudoColumns")
    use_limits: bool = option(False, "For trials: fit only the first limit_parents parents whose "
                              "peaks number between the two limit_peaks", alias="useCiLimits")
    limit_peaks: tuple[int, ...] = option((5, 10), "Fewest and most peaks in a trial", minimum=1,
                                          alias="ciDeblendChildRange")
    limit_parents: int = option(10, "Parents fitted in a trial", minimum=0,
                                alias="ciNumParentsToDeblend")
    catch_failures: bool = option(True, "Flag a blend whose fit fails; otherwise stop there",
                                  alias="catchFailures")
    model_psf_sigma: float = option(0.8, "Width of the PSF that models have; less where a band is "
                                    "sharper", unit="pixel", minimum=0.5, maximum=2.0,
                                    alias="modelPsfSigma")
    set_spectra: bool = option(True, "Start from spectra that fit best; otherwise from the images "
                               "at the peaks", alias="setSpectra")
    max_spectrum_cutoff: int = option(0, "Start from the images at the peaks in parents whose "
                                      "box area times peaks is larger; 0: no limit", minimum=0,
                                      alias="maxSpectrumCutoff")
    use_weights: bool = option(True, "Weight pixels by their inverse variance; otherwise by the "
                               "noise of the band", alias="useWeights")
    final_spectra: bool = option(True, "Solve for the spectra after the last iteration")
    wing_radius: int = option(50, "Beyond this distance the wings of bright stars are round "
                              "profiles, not free morphologies; 0: never", unit="pixel",
                              minimum=0)
    resize_every: int = option(3, "Iterations between adaptations of the model boxes; 0: never",
                               minimum=0, alias="resizeFrequency")
    asymmetry_price: float = option(250.0, "Loss of log-likelihood per unit of light without a "
                                    "mirror image, in a model of maximum 1, with which the "
                                    "accelerated fit leaves undetected neighbours alone; 0: none",
                                    minimum=0)
    optimizer: str = option("accelerated", "Steps of the fit; the others are the reference "
                            "system's", choices=("accelerated", "adaprox", "fista"))
    scheme: str = option("amsgrad", "Variant of adaprox",
                         choices=("amsgrad", "adam", "nadam", "padam", "adamx", "radam"))
    gradient_floor: float = option(0.03, "Denominators of adaprox are at least this fraction of "
                                   "the gradient's noise", minimum=0)
    rescale_spectra: bool = option(True, "Adaprox and fista: keep the flux when a morphology is "
                                   "normalised")
    spectrum_step: float = option(0.1, "Adaprox: shortest step of a spectrum", unit="sigma",
                                  minimum=0)
    start: str = option("sharpened", "Where the fit starts: a deconvolved image, or what the "
                        "reference system starts from", choices=("sharpened", "reference"))
    edge: str = option("open", "Adaprox and fista: what is beyond the edge of a model box: "
                       "unknown, or dark as in the reference system, which also fits boxes "
                       "tightly and recentres",
                       choices=("open", "zero"))
    noise_stat: str = option("median", "Average of a band's noise over its pixels",
                             choices=("median", "mean"))
    patience: int = option(1, "Iterations in a row that must satisfy relative_error", minimum=1)
    flux_tol: float = option(0.5, "Go on while a flux changes by more than this fraction of its "
                             "error in an iteration; 0: whatever fluxes do", minimum=0)
    kernel_reg: float = option(0.01, "Regularisation of the difference kernels; 0: none",
                               minimum=0)
    psf_grid: int = option(64, "Parents in one cell of this size share a PSF", unit="pixel",
                           minimum=1)
    flux_err_floor: float = option(0.005, "Fraction of the flux added to its error in quadrature",
                                   minimum=0)
    model_error: float = option(0.005, "Largest error of a stored model in a rendered pixel; 0: "
                                "lossless", unit="sigma", minimum=0)
    not_deblended: str = option("", "Also write a mask with plane NOT_DEBLENDED, set where "
                                "parents were skipped or failed, to this file")
    # fmt: on

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "standard": {},
        "model": {"relative_error": 1e-4, "max_iter": 600, "asymmetry_price": 0.0},
        "reference": {**_LIBRARY},
        "lsst": {
            **_LIBRARY,
            "min_iter": 5, "resize_every": 3, "background_thresh": 1.0,
            "initial_background_thresh": 1.0, "spectrum_step": 0.1, "split": "always",
            "coupling_passes": 0, "max_spectrum_cutoff": 1_000_000,
            "stats_mask": ("SAT", "INTRP", "NO_DATA"),
        },
    }  # fmt: skip
    FIXED: ClassVar[Mapping[str, tuple[str, str]]] = {
        "maxProxIter": ("1", "constraints are applied once per iteration"),
        "morphThresh": ("1", "obsolete in the reference system: use background_thresh"),
        "sourceModel": ("double", "the number of components follows from min_snr"),
        "fallback": ("true", "faint sources always start as point sources"),
        "persistIsolated": ("true", "isolated sources are always written"),
        "modelPsfSize": ("11", "without effect in the reference system; here it is 15"),
        "convolutionType": ("fft", "convolutions are exact to 1e-7 by FFT"),
        "notDeblendedMask": ("NOT_DEBLENDED", "the plane in the file not_deblended"),
        "columnInheritance": (
            "{'deblend_nChild': 'deblend_parentNChild', 'deblend_nPeaks': 'deblend_parentNPeaks'}",
            "objects have parent_n_peak, parent_n_child and the id of their parent",
        ),
        "measureParents": ("false", "parents have a table of their own, PARENTS"),
        "saveTemplates": ("true", "models are always written"),
        "useFootprints": ("true", "deconvolved images end with their footprints"),
        "eRel": ("0.001", "images are sharpened in a fixed number of steps"),
    }
    """Options of the reference system that have one value here, and why."""
    WITHOUT: ClassVar[Mapping[str, str]] = {
        "version": "obsolete in the reference system; leave it out",
        "morphImage": "obsolete in the reference system; leave it out",
        "waveletScales": "obsolete in the reference system; leave it out",
    }
    """Options of the reference system that have no counterpart here, and why."""
