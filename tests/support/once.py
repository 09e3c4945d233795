"""Things that are costly to make and that no test changes: made once for all workers of a run."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` has filled; the first worker makes it while the others wait.

    pytest-xdist gives each worker a folder of its own below the one of the run.
    """
    run = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent
    folder = run / name
    with (run / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = run / f"{name}.unfinished"
            unfinished.mkdir()  # fails when an earlier worker failed here: it has said why
            make(unfinished)
            unfinished.rename(folder)
    return folder
