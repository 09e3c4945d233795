"""A machine of another Debian release, with keysync installed by the release's own Python."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.systemd.machine import REPOSITORY, SSHD_CONFIG, Machine, new_machine

NewMachine = Callable[[str], AbstractContextManager[Machine]]
_LOCK = REPOSITORY / "requirements" / "runtime.lock"
_INSTALL = """\
set -e
python3 -m venv /opt/keysync
pip="/opt/keysync/bin/python -m pip -q --disable-pip-version-check install --no-index"
$pip --find-links /wheels --require-hashes -r /wheels/runtime.lock
$pip --no-deps /wheels/keysync-*.whl
rm -rf /wheels
"""


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> NewMachine:
    """Makes machines of a release, that are off; none waits for an earlier login's penalty."""
    if os.geteuid() != 0:
        pytest.skip(reason="needs root: it boots a real systemd in a container")

    @contextlib.contextmanager
    def make(release: str) -> Iterator[Machine]:
        folder = tmp_path_factory.mktemp(release)
        with (
            pytest.MonkeyPatch.context() as environment,
            new_machine(_rootfs(release), [], folder / "keys") as machine,
        ):
            # From 258 on systemd refuses cgroup v1, which the host may have.
            environment.setenv("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            _install(machine)
            sshd = machine.path(SSHD_CONFIG).read_text()
            machine.write(SSHD_CONFIG, f"PerSourcePenalties no\n{sshd}")
            yield machine

    return make


def _rootfs(release: str) -> Path:
    made = subprocess.run(
        [REPOSITORY / "tools" / "rootfs.sh", release], check=True, stdout=subprocess.PIPE, text=True
    )
    return Path(made.stdout.strip())


def _install(machine: Machine) -> None:
    """From wheels alone, as the locks name them: the machine has no network."""
    version = subprocess.run(
        ["chroot", str(machine.root), "python3", "-c", "import sys; print(*sys.version_info[:2])"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.split()
    wheels = machine.path("/wheels")
    wheels.mkdir()
    python = (sys.executable, "-m")
    target = ("--python-version", ".".join(version), "--only-binary", ":all:", "--no-deps")
    quiet = ("-q", "--disable-pip-version-check")
    _run(
        *(*python, "pip", "download", *quiet, *target),
        *("--require-hashes", "-d", str(wheels), "-r", str(_LOCK)),
    )
    _run(*python, "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(REPOSITORY))
    shutil.copy(_LOCK, wheels)
    _run("chroot", str(machine.root), "sh", "-c", _INSTALL)


def _run(*command: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
