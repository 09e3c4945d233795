"""What is installed is what the lock's hashes say, on every documented route; anything else is
refused before it is there, and half an installation never starts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

import pytest

from sandbox.console import Console
from tests.install.support import (
    PROGRAM,
    ROOTS_FILE,
    documented,
    keysync,
    release_variables,
    variables,
)
from tests.support.locks import pins_here
from tests.support.machine import key_line
from tests.support.own_machine import REPOSITORY, OwnMachine, Workshop

pytestmark = pytest.mark.attack
PACKAGES = "/opt/keysync/lib/python3*/site-packages"
NOT_IN_THE_LOCK = {"pip", "setuptools"}  # the interpreter's own, as venv makes them


def _installed(machine: OwnMachine) -> dict[str, str]:
    """Every package of /opt/keysync by its name in locks, with its version."""
    script = f"cd {PACKAGES} 2>/dev/null && ls -d *.dist-info || true"
    found = re.findall(r"(?m)^(.+)-(.+)\.dist-info$", machine.run("sh", "-c", script).stdout)
    names = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}
    return {name: names[name] for name in names.keys() - NOT_IN_THE_LOCK}


def _locked(locks: Iterable[str]) -> dict[str, str]:
    return {pin.name: pin.version for lock in locks for pin in pins_here(lock)}


def _nothing_can_start(machine: OwnMachine) -> bool:
    """No program, so no service, hook or onstart script runs any of it; nothing is set up."""
    folders = ("/etc/keysync", "/var/lib/keysync", ROOTS_FILE)
    return not machine.path(PROGRAM).exists() and not any(
        machine.path(path).exists() for path in folders
    )


def _onstart(machine: OwnMachine, console: Console, **more: str) -> str:
    template = variables(console) | release_variables(machine) | more
    return machine.run("sh", "/root/onstart.sh", environment=template).text


def _end(machine: OwnMachine) -> None:
    """Takes away what the onstart script keeps running, while the console still answers."""
    keysync(machine, "uninstall", "--yes")


@pytest.mark.parametrize("document", ["README.md", "docs/install.md"])
def test_from_a_clone_exactly_the_locks_are_installed(bare: OwnMachine, document: str) -> None:
    """The block that the document shows: the locked versions, by their hashes, and nothing else."""
    script = documented(document, "-r requirements/build.lock")
    assert "--require-hashes" in script
    bare.run("sh", "-ec", f"cd {shlex.quote(str(REPOSITORY))}\n{script}")
    found = _installed(bare)
    found.pop("keysync")
    assert found == _locked(["runtime", "build"])
    assert "keysync" in keysync(bare, "--version").stdout


def test_from_a_release_exactly_the_lock_is_installed(machine: OwnMachine) -> None:
    """The block of docs/install.md, which made this machine, and the lock in the wheel."""
    found = _installed(machine)
    found.pop("keysync")
    assert found == _locked(["runtime"])
    script = f"cat {PACKAGES}/agent/share/runtime.lock"
    lock = REPOSITORY / "requirements/runtime.lock"
    assert machine.run("sh", "-c", script).stdout == lock.read_text()


def test_onstart_takes_the_lock_and_lets_nobody_write(bare: OwnMachine, console: Console) -> None:
    """A newer release of a library, as a hijacked account would publish it, is not taken. G8: the
    base image has umask 002 and a user in group 0, who must not be able to change the program.
    """
    [wheel] = [name for name in bare.names("/tmp/wheels") if name.startswith("tzlocal-")]
    newer = wheel.replace(f"-{_locked(['runtime'])['tzlocal']}-", "-99.0-")
    bare.write(f"/tmp/wheels/{newer}", bare.path(f"/tmp/wheels/{wheel}").read_bytes())
    template = variables(console) | release_variables(bare)
    bare.run("sh", "-c", "umask 002; exec sh /root/onstart.sh", environment=template)
    found = _installed(bare)
    found.pop("keysync")
    assert found == _locked(["runtime"])
    assert bare.run("find", "/opt/keysync", "!", "-type", "l", "-perm", "/022").stdout == ""
    assert not bare.path("/opt/keysync/wheel").exists()
    _end(bare)


@pytest.mark.parametrize("name", ["httpx", "keysync"])
def test_one_changed_byte_is_refused(bare: OwnMachine, console: Console, name: str) -> None:
    """A mirror that serves another file under the right name: pip says so, not a single package is
    installed, nothing starts.
    """
    folder = "/tmp/release" if name == "keysync" else "/tmp/wheels"
    [wheel] = [found for found in bare.names(folder) if found.startswith(f"{name}-")]
    data = bytearray(bare.path(f"{folder}/{wheel}").read_bytes())
    data[len(data) // 2] ^= 1
    bare.write(f"{folder}/{wheel}", bytes(data))
    said = _onstart(bare, console)
    assert "DO NOT MATCH THE HASHES" in said
    assert f"{name}==" in said
    assert "could not be installed" in said
    assert _installed(bare) == {}
    assert _nothing_can_start(bare)


@pytest.mark.parametrize(
    ("digest", "words"),
    [("0" * 64, "DO NOT MATCH THE HASHES"), ("", "is not set"), ("abc", "DO NOT MATCH")],
    ids=["wrong", "missing", "cut"],
)
def test_a_wrong_digest_installs_nothing(
    bare: OwnMachine, console: Console, digest: str, words: str
) -> None:
    """Without the right SHA-256 of keysync's wheel not even a library is fetched."""
    said = _onstart(bare, console, KEYSYNC_SHA256=digest)
    assert words in said
    assert _installed(bare) == {}
    assert _nothing_can_start(bare)


def test_a_source_archive_is_never_built(bare: OwnMachine, console: Console) -> None:
    """A library that is there as source only: its build script, and what that fetches unchecked,
    would run as root.
    """
    [wheel] = [name for name in bare.names("/tmp/wheels") if name.startswith("tzlocal-")]
    bare.path(f"/tmp/wheels/{wheel}").unlink()
    setup = "open('/built', 'w')\nfrom setuptools import setup\nsetup(name='tzlocal')\n"
    version = _locked(["runtime"])["tzlocal"]
    bare.write(f"/tmp/tzlocal-{version}/setup.py", setup)
    archive = f"/tmp/wheels/tzlocal-{version}.tar.gz"
    bare.run("tar", "-C", "/tmp", "-czf", archive, f"tzlocal-{version}")
    assert "No matching distribution found for tzlocal" in _onstart(bare, console)
    assert not bare.path("/built").exists()
    assert _nothing_can_start(bare)


@pytest.fixture(scope="module")
def whole_size(workshop: Workshop) -> int:
    """The bytes on the disk of an installation."""
    with workshop.machine() as machine:
        return int(machine.run("du", "-s", "--block-size=1", "/opt/keysync").stdout.split()[0])


def test_half_an_installation_never_starts(
    bare: OwnMachine, console: Console, whole_size: int
) -> None:
    """The disk is full in the midst of it, early or late: no program is there, and the next start,
    with room, begins anew and is well.
    """
    bare.run("mount", "-t", "tmpfs", "tmpfs", "/opt")
    for part in (0.6, 0.97):
        bare.run("mount", "-o", f"remount,size={int(whole_size * part)}", "/opt")
        said = _onstart(bare, console)
        assert "No space left" in said
        assert "could not be installed" in said
        assert bare.path("/opt/keysync/bin/pip").exists()
        assert _nothing_can_start(bare)
    bare.run("mount", "-o", "remount,size=1g", "/opt")
    assert "starting the agent" in _onstart(bare, console)
    _end(bare)


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        ("rm apscheduler/executors/pool.py", "apscheduler"),
        ("truncate -s -1 paramiko/transport.py", "paramiko"),
        ("rm -r httpx httpx-*", "httpx"),
        ("rm structlog-*/RECORD", "structlog"),
        ("rm agent/service/daemon.py", "keysync"),
    ],
    ids=["file", "bytes", "library", "record", "own"],
)
def test_install_puts_nothing_half_into_service(
    machine: OwnMachine, console: Console, damage: str, name: str
) -> None:
    """An upgrade by hand that was interrupted: `keysync install` names what is not whole, exit code
    74, and neither writes nor starts anything.
    """
    machine.run("sh", "-ec", f"cd {PACKAGES} && {damage}")
    done = keysync(machine, "install", exits=74, environment=variables(console))
    assert f"is not completely installed in /opt/keysync: {name} is missing" in done.stderr
    assert "install keysync again" in done.stderr
    assert not machine.names("/etc/keysync")
    assert not machine.path(ROOTS_FILE).exists()


def test_a_refused_upgrade_leaves_the_old_version(machine: OwnMachine, console: Console) -> None:
    """A release whose wheel is not the one of SHA256SUMS: nothing is touched."""
    console.add_key(key_line("laptop"))
    keysync(machine, "install", environment=variables(console))
    machine.write("/tmp/release/keysync-9.9.9-py3-none-any.whl", b"not it")
    machine.write("/tmp/release/SHA256SUMS", f"{'0' * 64}  keysync-9.9.9-py3-none-any.whl\n")
    script = documented("docs/install.md", "SHA256SUMS")
    done = machine.run("sh", "-ec", f"cd /tmp/release\n{script}", exits=1)
    assert "did NOT match" in done.stderr
    keysync(machine, "sync")
