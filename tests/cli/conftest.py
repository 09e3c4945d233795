"""A local console and a machine that follows it, new for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from tests.support.machine import Machine


@pytest.fixture
def console() -> Iterator[Console]:
    with Console() as serving:
        yield serving


@pytest.fixture
def machine(tmp_path: Path, console: Console) -> Machine:
    made = Machine(tmp_path, console.url)
    made.set_api_key(console.api_key)
    return made
