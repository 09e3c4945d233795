"""Machines of their own with keysync installed from its wheel; one installation for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from tests.support.own_machine import OwnMachine, Workshop, open_workshop
from tests.support.wheels import build_wheel, make_wheelhouse


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """keysync's wheel and those of its dependencies."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    build_wheel(folder)
    make_wheelhouse(folder)
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
    """As docs/install.md says, but for the source of the wheels."""
    for wheel in wheelhouse.iterdir():
        machine.write(f"/tmp/wheels/{wheel.name}", wheel.read_bytes())
    machine.run("python3", "-m", "venv", "/opt/keysync")
    pip = ("/opt/keysync/bin/pip", "install", "-q", "--no-index", "--find-links", "/tmp/wheels")
    machine.run(*pip, "--no-compile", "--disable-pip-version-check", "keysync")


@pytest.fixture
def machine(workshop: Workshop) -> Iterator[OwnMachine]:
    """A fresh machine with keysync's program, and nothing set up."""
    with workshop.machine() as machine:
        yield machine


@pytest.fixture
def console() -> Iterator[Console]:
    """A console that the machines reach on loopback."""
    with Console() as console:
        yield console
