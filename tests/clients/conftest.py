"""One sshd and one home of the client for all tests here; a fresh account for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from sandbox.instance import Instance
from tests.clients.support import PROGRAMS, Client, Setting
from tests.e2e.support import make_world


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    missing = [name for name in ("vastai", "schemathesis") if not (PROGRAMS / name).exists()]
    why = f".venv-clients lacks {' and '.join(missing)}: tools/setup.sh clients makes it"
    if missing and (os.environ.get("CI") or os.geteuid() == 0):
        pytest.fail(why)
    if missing:
        pytest.skip(reason=why)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the client keeps what it learned about the provider."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def instance() -> Iterator[Instance]:
    with Instance() as running:
        yield running


@pytest.fixture
def setting(instance: Instance, home: Path, tmp_path: Path) -> Iterator[Setting]:
    """The instance of a new account, without keys yet."""
    with Console() as console:
        number = console.world.platform.add_instance("C.1", keys_file=instance.authorized_keys)
        world = make_world(instance, console, tmp_path)
        yield Setting(home, world, number, Client(home, console.url, console.api_key))
