"""The hint for an incomplete installation; tests/install damages real installations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.machine import REPOSITORY

_CHECK = """
import sys
from agent.setup.package_check import check_installation
from agent.errors import TargetFailed
try:
    check_installation()
except TargetFailed as error:
    print(sys.prefix, error.kind, error.hint, sep="\\n")
"""


def _checked(python: str) -> list[str]:
    """Where this Python is, and what the check says there: keysync's code lies beside it only."""
    done = subprocess.run(
        [python, "-c", _CHECK],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "PYTHONNOUSERSITE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def _without_packages(folder: Path) -> str:
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True)
    return str(folder / "bin" / "python")


def test_a_virtual_environment_is_made_anew(tmp_path: Path) -> None:
    """It holds nothing but keysync, so that to remove it is safe."""
    prefix, kind, hint = _checked(_without_packages(tmp_path / "own"))
    assert kind == "installation_incomplete"
    assert prefix == str(tmp_path / "own")
    assert hint == f"Remove {prefix} and install keysync again, as docs/install.md says."


def test_the_systems_python_is_not_removed(tmp_path: Path) -> None:
    """Who runs keysync by /usr/bin/python3 is never told to remove /usr."""
    python = tmp_path / "python"
    real = os.path.realpath(sys.executable)  # outside of any virtual environment
    python.write_text(f'#!/bin/sh\nexec "{real}" -S "$@"\n')  # nor with packages of its own
    python.chmod(0o755)
    prefix, kind, hint = _checked(str(python))
    assert kind == "installation_incomplete"
    assert prefix not in hint
    assert hint == "Install keysync into a virtual environment of its own, as docs/install.md says."
