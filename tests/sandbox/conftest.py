"""A console with a fresh account, and those who come to it by its API and by its page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sandbox.console import Console
from tests.sandbox.page_support import Visitor
from tests.sandbox.support import client_of


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    """Its data are in `tmp_path`."""
    with Console(directory=tmp_path) as serving:
        yield serving
    serving.world.close()


@pytest.fixture
def client(console: Console) -> Iterator[httpx.Client]:
    """Has the account's own API key."""
    with client_of(console) as connected:
        yield connected


@pytest.fixture
def visitor(console: Console) -> Iterator[Visitor]:
    """Has logged in to the page."""
    arrived = Visitor(console)
    arrived.log_in()
    yield arrived
    arrived.close()
