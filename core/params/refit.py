"""Options of `coblend refit`."""

from __future__ import annotations

from dataclasses import dataclass

from coblend.core.params.deblend import DeblendParams
from coblend.core.params.field import compress_option, option


@dataclass(frozen=True, slots=True)
class RefitParams(DeblendParams):
    """Which blends are fitted again and how; the other options are those of `deblend`."""

    # fmt: off
    max_iter: int = option(100, "Most further iterations per blend", minimum=0, shown=True,
                           alias="maxIter")
    relative_error: float = option(1e-4, "Stop when the log-likelihood changes by less than this "
                                   "fraction", minimum=0, shown=True, alias="relativeError")
    min_iter: int = option(10, "Fewest further iterations per blend", minimum=0, alias="minIter")
    patience: int = option(4, "Iterations in a row that must satisfy relative_error", minimum=1)
    blend: tuple[int, ...] = option((), "Blends to fit again: ids of them, of "
                                        "their parents or of their objects", shown=True)
    only: str = option("", "Fit all parents again that failed, did not converge or were skipped",
                       choices=("", "failed", "unconverged", "skipped"), shown=True)
    add_peaks: str = option("", "Sources to add: x,y pairs separated by spaces, or a table with "
                            "x, y (parent coordinates) or ra, dec", shown=True)
    drop_peaks: str = option("", "Objects to drop: ids separated by commas, or a table with id",
                             shown=True)
    suggest_peaks: bool = option(False, "Fit nothing; write a table of peaks in the residual, for "
                                 "add_peaks", shown=True)
    residual: str = option("", "Also write the images minus the new models, about these blends, "
                           "to this file, e.g. '{band}.residual.fits'", shown=True)
    force: bool = option(False, "Accept exposures that are not those the models were made from",
                         shown=True)
    suggest_thresh: float = option(5.0, "Least significance of a suggested peak", unit="sigma",
                                   minimum=0)
    suggest_distance: float = option(3.0, "Least distance of a suggested peak from others",
                                     unit="pixel", minimum=0)
    compress: str = compress_option()
    # fmt: on
