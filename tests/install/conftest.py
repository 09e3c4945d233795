"""Machines of their own with keysync installed from its wheel; one installation for all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from tests.install.support import ONSTART, documented, write_release
from tests.support.own_machine import OwnMachine, Workshop, open_workshop
from tests.support.wheels import build_wheel, locked_wheels


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """keysync's wheel and those of its dependencies."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    for wheel in (build_wheel(folder), *locked_wheels()):
        if wheel.parent != folder:
            shutil.copy(wheel, folder)
    return folder


@pytest.fixture(scope="session")
def workshop(wheelhouse: Path) -> Iterator[Workshop]:
    """Machines with keysync in /opt/keysync, installed from the wheel without network."""
    if os.geteuid() != 0:
        pytest.skip(reason="needs root: it makes mounts in a namespace of its own")
    with open_workshop() as workshop:
        with workshop.machine() as machine:
            install_wheel(machine, wheelhouse)
        workshop.make_base()
        yield workshop


def install_wheel(machine: OwnMachine, wheelhouse: Path) -> None:
    """As docs/install.md says for a release; pip finds the locked wheels on the disk."""
    variables = write_release(machine, wheelhouse)
    script = documented("docs/install.md", "SHA256SUMS")
    machine.run("sh", "-ec", f"cd /tmp/release\n{script}", environment=variables)


@pytest.fixture
def machine(workshop: Workshop) -> Iterator[OwnMachine]:
    """A fresh machine with keysync's program, and nothing set up."""
    with workshop.machine() as machine:
        yield machine


@pytest.fixture
def bare(workshop: Workshop, wheelhouse: Path) -> Iterator[OwnMachine]:
    """A container without keysync, with a release; pip finds the libraries without an index."""
    with workshop.machine() as machine:
        machine.run("rm", "-rf", "/opt/keysync")
        machine.environment |= write_release(machine, wheelhouse)
        machine.write("/root/onstart.sh", ONSTART.read_bytes(), 0o755)
        yield machine


@pytest.fixture
def console() -> Iterator[Console]:
    """A console that the machines reach on loopback."""
    with Console() as console:
        yield console
