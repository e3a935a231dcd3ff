"""Options of ``coblend run``."""

from __future__ import annotations

from dataclasses import dataclass

from coblend.core.params.field import Checked, option


@dataclass(frozen=True, slots=True)
class RunParams(Checked):
    """What the chain is run on, and what it makes besides the catalogue."""

    bands: tuple[str, ...] = option(
        (), "Bands, the one with the most trusted positions first.", shown=True
    )
    warps: str = option(
        "warps/{patch}/{band}/*.fits", "Warps of a band of a patch; *, ? and [] as in the shell.",
        shown=True,
    )  # fmt: skip
    folder: str = option("{patch}", "Folder of what is made of a patch.", shown=True)
    patches: tuple[str, ...] = option(
        (), "Patches; 0..80 stands for all numbers from 0 to 80.", shown=True
    )
    detect_on: str = option(
        "coadd", "Images that sources are found on.", choices=("coadd", "matched"), shown=True
    )
    products: tuple[str, ...] = option(
        ("heavy", "residual"),
        "What is made besides coadds and catalogues.",
        choices=("matched", "heavy", "residual"),
        shown=True,
    )

    @property
    def has_matched(self) -> bool:
        """Whether PSF-matched coadds are made."""
        return self.detect_on == "matched" or "matched" in self.products

    @property
    def commands(self) -> tuple[str, ...]:
        """Commands of the chain."""
        matched = ("psf-match",) if self.has_matched else ()
        return ("assemble-coadd", *matched, "detect", "merge-detections", "deblend",
                "reconstruct-footprints")  # fmt: skip
