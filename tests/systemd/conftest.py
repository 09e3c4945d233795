"""The root file system and keysync's program, once for all; a machine for each that asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.systemd.machine import REPOSITORY, Machine, new_machine

NewMachine = Callable[..., AbstractContextManager[Machine]]
_HOME = "/opt/keysync"
_PYTHON = "/opt/python"
_SYSTEM = Path("/usr")  # the root file system has the same Python there


@pytest.fixture(scope="session")
def rootfs() -> Path:
    """Where the root file system is; made when it is missing, which takes a minute."""
    if os.geteuid() != 0:
        pytest.skip(reason="needs root: it boots a real systemd in a container")
    if shutil.which("systemd-nspawn") is None:
        pytest.fail("systemd-nspawn is missing: run `tools/setup.sh systemd`, or `make test`")
    made = subprocess.run(
        [REPOSITORY / "tools" / "rootfs.sh"], check=True, stdout=subprocess.PIPE, text=True
    )
    return Path(made.stdout.strip())


@pytest.fixture(scope="session")
def program(rootfs: Path) -> Iterator[list[str]]:
    """A virtual environment of the built wheel with its locked libraries, and its interpreter.

    Gives what systemd-nspawn shall bind; the service account could not reach a home of root's.
    """
    with tempfile.TemporaryDirectory(prefix="keysync-program-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        venv = Path(folder, "venv")
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
        _run(*build, str(REPOSITORY))
        [wheel] = Path(folder).glob("*.whl")
        _run(sys.executable, "-m", "venv", str(venv))
        pip = [str(venv / "bin" / "python"), "-m", "pip", "-q", "--disable-pip-version-check"]
        lock = REPOSITORY / "requirements" / "runtime.lock"
        _run(*pip, "install", "--require-hashes", "-r", str(lock))
        _run(*pip, "install", "--no-deps", "--no-index", str(wheel))
        prefix = Path(sys.base_prefix).resolve()
        binds = [f"{venv}:{_HOME}"]
        if prefix != _SYSTEM:
            _move(venv, prefix)
            binds.append(f"{prefix}:{_PYTHON}")
            # It may look for its shared library only where it was built.
            binds += [f"{file}:/usr/lib/{file.name}" for file in prefix.glob("lib/libpython*.so.*")]
        yield binds


def _run(*command: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def _move(venv: Path, prefix: Path) -> None:
    """Its scripts and links name everything by the path that the machines see it under."""
    for path in (venv / "pyvenv.cfg", *(venv / "bin").iterdir()):
        if path.is_symlink():
            target = os.readlink(path)
            path.unlink()
            path.symlink_to(target.replace(str(prefix), _PYTHON))
        else:
            text = path.read_bytes().replace(str(venv).encode(), _HOME.encode())
            path.write_bytes(text.replace(str(prefix).encode(), _PYTHON.encode()))


@pytest.fixture(scope="session")
def machines(
    rootfs: Path, program: list[str], tmp_path_factory: pytest.TempPathFactory
) -> NewMachine:
    """Makes machines that are off, with keysync placed unless `keysync=False` is asked for."""

    def make(*, keysync: bool = True) -> AbstractContextManager[Machine]:
        keys = tmp_path_factory.mktemp("machine") / "keys"
        return new_machine(rootfs, program, keys, keysync=keysync)

    return make
