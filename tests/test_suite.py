"""What the suite itself promises."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.conftest import SLOW
from tests.support.groups import GROUPS
from tests.support.machine import REPOSITORY


def test_a_group_is_one_workers() -> None:
    """Tests that would disturb each other never run side by side."""
    words = ("-v", "-n2", "-p", "no:cacheprovider", "tests/install/test_locks.py", "-k", "a_lock")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    workers = re.findall(r"^\[(gw\d)\] .* PASSED ", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout
    assert len(workers) > 3
    assert len(set(workers)) == 1


def test_the_lists_of_tests_name_tests_that_are_there() -> None:
    """A renamed one would lose its group, or become fast, without a word."""
    assert [name for name in (*GROUPS, *SLOW) if not _exists(name)] == []


def _exists(name: str) -> bool:
    """Whether there is such a folder, file, or test in a file."""
    file, _, test = name.partition("::")
    path = REPOSITORY / "tests" / file
    return path.exists() and (not test or f"\ndef {test}(" in path.read_text())
