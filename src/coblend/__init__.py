"""Coblend: coadd, PSF-match, detect, merge, deblend and reconstruct on plain FITS files.

The few entry points a notebook needs are importable from here and loaded on first use::

    import coblend
    exposure = coblend.read_exposure("coadd_g.fits")
    models = coblend.read_models("deblended.fits")
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from coblend._version import __version__

_ENTRY_POINTS = {
    "read_exposure": "coblend.io.exposure.exposures",
    "write_exposure": "coblend.io.exposure.exposures",
    "read_detections": "coblend.io.detect.detections",
    "read_models": "coblend.io.deblend.models",
}

__all__ = ["__version__", *_ENTRY_POINTS]


def __getattr__(name: str) -> Any:
    """Import an entry point when it is first asked for (PEP 562)."""
    if name in _ENTRY_POINTS:
        return getattr(import_module(_ENTRY_POINTS[name]), name)
    raise AttributeError(f"module 'coblend' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names for completion in a notebook."""
    return sorted(__all__)
