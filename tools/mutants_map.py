"""Notes which test executes which line of `agent/`, also in the processes that it starts.

For one run of the tests, `tools/mutants.py map` puts this module into the checkout's virtual
environment, where each Python process calls `start`. pytest loads it as a plugin, too:
PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import coverage

_measured: list[tuple[coverage.Coverage, Path]] = []
_tests: dict[str, tuple[float, str]] = {}
_test = [""]
_saving = threading.Lock()


def start(folder: str, agent: str) -> None:
    """Measures this process for the test that `folder`/context names, until it ends."""
    if _measured or not os.path.exists(f"{folder}/context"):
        return
    measured = coverage.Coverage(
        f"{folder}/lines", True, config_file=False, include=[f"{agent}/*"], check_preimported=False
    )
    measured.set_option("run:patch", ["_exit"])  # a process may end in os._exit
    measured.set_option("run:disable_warnings", ["no-data-collected", "module-not-measured"])
    measured.start()
    _measured.append((measured, Path(folder)))
    _follow()
    os.register_at_fork(after_in_child=_follow)
    atexit.register(_save)
    if "pytest" not in sys.orig_argv:
        threading.Thread(target=_save_often, daemon=True).start()


def _save() -> None:
    with _saving:
        for measured, _ in _measured:
            measured.save()


def _save_often() -> None:
    """A test may end a process with SIGKILL."""
    while True:
        time.sleep(0.5)
        _save()


def _follow() -> None:
    for measured, folder in _measured:
        measured.switch_context((folder / "context").read_text())


def _switch(context: str) -> None:
    for _, folder in _measured:
        (folder / "context").write_text(context)
    _follow()


def pytest_runtest_logstart(nodeid: str) -> None:
    """A test begins."""
    _test[0] = nodeid
    _switch(nodeid)


def pytest_fixture_setup(fixturedef: Any) -> None:
    """What is made for several tests counts for all tests of the file."""
    shared = fixturedef.scope != "function"
    _switch(_test[0].partition("::")[0] if shared else _test[0])


def pytest_runtest_call() -> None:
    """The fixtures are made."""
    _switch(_test[0])


def pytest_runtest_logreport(report: Any) -> None:
    """Adds up the seconds, and keeps the worst outcome."""
    seconds, outcome = _tests.get(report.nodeid, (0.0, "passed"))
    outcome = outcome if report.passed else report.outcome
    _tests[report.nodeid] = (seconds + report.duration, outcome)


def pytest_sessionfinish() -> None:
    """Leaves the tests beside their lines."""
    for _, folder in _measured:
        (folder / "tests.json").write_text(json.dumps(_tests))
        (folder / "context").write_text("")
