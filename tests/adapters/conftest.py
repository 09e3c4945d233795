"""A real unprivileged user, a local console, and a machine that follows it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from sandbox.users import temporary_user
from tests.adapters.support import KEY, User, new_machine, remove
from tests.support.machine import Machine


@pytest.fixture(scope="session")
def _somebody() -> Iterator[User]:
    if os.geteuid() != 0:
        pytest.skip(reason="needs root: it makes an ordinary user and removes it again")
    with temporary_user() as name:
        entry = pwd.getpwnam(name)
        yield User(name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


@pytest.fixture
def user(_somebody: User) -> Iterator[User]:
    """A real unprivileged user with an empty home, as `useradd -m -p '*'` makes one."""
    for path in _somebody.home.iterdir():
        remove(path)
    yield _somebody
    for path in _somebody.home.iterdir():
        remove(path)


@pytest.fixture
def console() -> Iterator[Console]:
    """A local console that lists one key."""
    with Console() as running:
        running.add_key(KEY.decode())
        yield running


@pytest.fixture
def machine(console: Console, tmp_path: Path) -> Machine:
    """Follows that console; its state folder and its own key file are in `tmp_path`."""
    return new_machine(tmp_path / "machine", console)
