"""``coblend info``: what a file holds and what made it."""

from __future__ import annotations

import click

from coblend.cli.command import command
from coblend.cli.report import emit
from coblend.cli.run import Run
from coblend.core.params.common import NoParams


@command(
    "info",
    NoParams,
    writes=False,
    looks=True,
    examples=("coblend info coadd_g.fits", "coblend info deblended.fits --command"),
)
@click.argument("file")
@click.option("--command", "show_command", is_flag=True, help="Print only what remakes it.")
def info(run: Run, params: NoParams, file: str, show_command: bool) -> None:
    """Show the HDUs of FILE, what made it and from what.

    With --command prints only the command line that makes it again, to be run where its inputs
    are. Works on any FITS file; what made it is known for files of coblend. Of a model file of
    the Rubin pipelines it shows bands and numbers of models.
    """
    from coblend.io.deblend.lsst_models import is_lsst_models, read_lsst_models
    from coblend.io.fits.summary import summarize

    if is_lsst_models(file) and not show_command:
        models = read_lsst_models(file)
        tables = ("parents", "blends", "objects", "components")
        counts = {f"n_{name}": len(getattr(models, name)) for name in tables}
        numbers = {"file": file, "schema": "models of the Rubin pipelines"}
        run.report(numbers, [{"bands": ",".join(models.bands), **counts}])
        return
    summary = summarize(file)
    if show_command:
        emit(summary.remake)
        return
    if not run.json:
        emit("\n".join(summary.origin()))
    run.report(summary.numbers(), summary.rows())
