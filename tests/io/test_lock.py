"""Two processes never write the same output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coblend.core.errors import OutputError, ResourceError
from coblend.io.fits.lock import exclusive

HOLDER = """
import sys, time
from coblend.io.fits.lock import exclusive
with exclusive(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_process_is_told_and_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "a.fits")
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ResourceError, match=r"a\.fits: another process"), exclusive(path):
            pass
        with exclusive(str(tmp_path / "b.fits")):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait(30)
    with exclusive(path):
        pass
    assert os.listdir(tmp_path) == []


def test_folders_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written to"), exclusive(f"{tmp_path}/no/a"):
        pass
