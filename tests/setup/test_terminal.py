"""What a person reads first."""

from __future__ import annotations

import subprocess
import sys

from tests.support.machine import REPOSITORY

_PLAN_AND_REFUSAL = """
from agent.cli.terminal import print_error
print("what would be done")
print_error("refused")
"""


def test_an_error_comes_after_what_led_to_it() -> None:
    """A plan that comes out after its refusal reads as what was done: stdout is not kept back."""
    done = subprocess.run(
        [sys.executable, "-c", _PLAN_AND_REFUSAL],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["what would be done", "refused"]
