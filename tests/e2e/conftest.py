"""One real sshd for each module; a fresh console, key file and state folder for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from sandbox.instance import Instance
from tests.e2e.support import World, make_world


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as running:
        yield running


@pytest.fixture
def world(instance: Instance, tmp_path: Path) -> Iterator[World]:
    with Console() as console:
        instance.authorized_keys.unlink(missing_ok=True)
        yield make_world(instance, console, tmp_path)
