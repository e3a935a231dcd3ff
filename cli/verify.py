"""``coblend verify``: whether files are whole."""

from __future__ import annotations

import click

from coblend.cli.command import command
from coblend.cli.run import Run
from coblend.core.errors import CoblendError, CorruptFileError
from coblend.core.params.common import NoParams

_MOST = 6
"""Damaged parts named per file."""
_REMEDY = "re-copy the file, or make it again (coblend info FILE --command)"


@command(
    "verify",
    NoParams,
    writes=False,
    looks=True,
    examples=("coblend verify coadd_*.fits deblended.fits",),
)
@click.argument("files", nargs=-1, required=True)
def verify(run: Run, params: NoParams, files: tuple[str, ...]) -> None:
    """Check that FILES are whole: structure, checksums, and every stored blend.

    Prints one row per file, then the first error; its exit code is 65 for a damaged file, 66 for
    a missing one.
    """
    from coblend.io.deblend.models import verify_blends
    from coblend.io.fits.specs import expand_lists
    from coblend.io.fits.structure import scan
    from coblend.io.fits.summary import verify as check

    rows: list[dict[str, str]] = []
    errors: list[CoblendError] = []
    for path in expand_lists(files):
        try:
            damaged = check(path)
            if (scan(path)[0].value("SCHEMA") or "").startswith("deblended/"):
                damaged += verify_blends(path)
            if damaged:
                errors.append(CorruptFileError(
                    f"checksum mismatch in {', '.join(damaged[:_MOST])}", path, hint=_REMEDY
                ))  # fmt: skip
            text = ", ".join(damaged[:_MOST])
        except CoblendError as error:
            errors.append(error)
            text = error.message
        rows.append({"file": path, "status": "damaged" if text else "ok", "damaged": text})
    run.report({"n_file": len(rows), "n_damaged": len(errors)}, rows)
    if errors:
        if not run.json:
            run.finish()
        raise errors[0]
