"""Side products of `detect` and `merge-detections`: label images and regions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coblend.cli.run import Run

if TYPE_CHECKING:
    from coblend.core.detection import Detections

F = TypeVar("F", bound=Callable[..., Any])


def product_options(callback: F) -> F:
    """Add ``--out-segmentation`` and ``--regions``."""
    for name, text in (
        ("--regions", "Also write DS9 regions: outlines and peaks."),
        ("--out-segmentation", "Also write a label image: row of the parent + 1."),
    ):
        callback = click.option(name, metavar="FILE", help=text)(callback)
    return callback


def check_products(run: Run, *paths: str | None) -> None:
    """Refuse at once what could not be written at the end."""
    for path in paths:
        if path:
            run.check_output(path)


def write_products(
    run: Run, detections: Detections, out_segmentation: str | None, regions: str | None
) -> None:
    """Write what was asked for."""
    from coblend.io.exposure.frame import frame_header
    from coblend.io.sky.regions import write_regions

    if out_segmentation:
        labels = detections.footprints.labels(detections.box)
        with run.create("segmentation/1", path=out_segmentation) as out:
            out.image(
                "SEGMENTATION", labels, header=frame_header(detections.box), wcs=detections.wcs
            )
    if regions:
        write_regions(regions, detections, overwrite=run.overwrite)
