"""Waiting for writers where the process may not lease other users' files by itself."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.adapters.files.locks import read_lease

_LEASED = """
import fcntl, os, sys, time
from agent.adapters.files.locks import read_lease
fd = os.open(sys.argv[1], os.O_RDONLY)
with read_lease(fd, time.monotonic() + 5) as lease_holds:
    print(fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK, lease_holds(), os.geteuid())
print(fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_UNLCK, os.access("/etc/shadow", os.R_OK))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it drops one of root's capabilities")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_a_lease_is_had_without_its_capability(tmp_path: Path) -> None:
    """G7: containers have no CAP_LEASE, and a late edit of a user's file must not be lost there."""
    file = tmp_path / "authorized_keys"
    file.write_bytes(b"")
    nobody = pwd.getpwnam("nobody")
    os.chown(file, nobody.pw_uid, nobody.pw_gid)
    command = [sys.executable, "-c", _LEASED, str(file)]
    done = subprocess.run(
        ["setpriv", "--bounding-set=-lease", "--inh-caps=-lease", *command],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.split() == ["True", "True", "0", "True", "True"], done.stderr


def test_nobody_waits_for_a_lease_where_leases_are_unsupported() -> None:
    """R11: only EAGAIN says that somebody writes; another error will be the same at the deadline.

    A pipe takes the place of a file system without leases: both answer EINVAL (fcntl(2)).
    """
    reading, writing = os.pipe()
    try:
        start = time.monotonic()
        with read_lease(reading, start + 5) as lease_holds:
            assert lease_holds()
        assert time.monotonic() - start < 2
    finally:
        os.close(reading)
        os.close(writing)
