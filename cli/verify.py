"""``coblend verify``: whether files are whole."""

from __future__ import annotations

from dataclasses import dataclass

import click

from coblend.cli.command import command
from coblend.cli.run import Run
from coblend.core.errors import CorruptFileError
from coblend.core.params.field import Checked

_MOST = 6
"""Damaged parts named per file."""


@dataclass(frozen=True, slots=True)
class VerifyParams(Checked):
    """`verify` has no options of its own."""


@command(
    "verify",
    VerifyParams,
    writes=False,
    looks=True,
    examples=("coblend verify coadd_*.fits deblended.fits",),
)
@click.argument("files", nargs=-1, required=True)
def verify(run: Run, params: VerifyParams, files: tuple[str, ...]) -> None:
    """Check that FILES are whole: structure, checksums, and every stored blend.

    Prints one row per file; exit code 65 if any is damaged.
    """
    from coblend.io.deblend.models import verify_blends
    from coblend.io.fits.specs import expand_lists
    from coblend.io.fits.structure import scan
    from coblend.io.fits.summary import verify as check

    rows = []
    for path in expand_lists(files):
        damaged = check(path)
        if (scan(path)[0].value("SCHEMA") or "").startswith("deblended/"):
            damaged += verify_blends(path)
        rows.append({"file": path, "status": "damaged" if damaged else "ok",
                     "damaged": ", ".join(damaged[:_MOST])})  # fmt: skip
    run.report({"n_file": len(rows)}, rows)
    bad = [r for r in rows if r["status"] != "ok"]
    if bad:
        run.finish()
        raise CorruptFileError(
            f"checksum mismatch in {bad[0]['damaged']}"
            + (f" ({len(bad)} of {len(rows)} files are damaged)" if len(bad) > 1 else ""),
            bad[0]["file"],
            hint="re-copy the file, or make it again (coblend info FILE --command)",
        )
