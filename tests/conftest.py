"""Hypothesis: no deadlines, since machines are shared; the same examples in every CI run. And which
tests one worker of pytest-xdist runs, in a row; and the option for the full sweeps.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
# For the edit loop (make test-fast).
settings.register_profile("fast", deadline=None, max_examples=20)
# For the model check (tests/attacks/test_model.py): an hour or so on a quiet machine.
settings.register_profile("long", deadline=None, max_examples=3000)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# By the beginning of a path. All else is free: it makes its own users, ports, folders and mounts.
_GROUPS = {
    "systemd/": "nspawn",  # one machine at a time, and one installation of the program for all
    "systems/": "nspawn",
    "install/": "install",  # one installation from the wheel, from which all machines start
    "clients/": "clients",  # the client keeps what it learned about the provider in one home
    "browser/": "browser",  # one Chromium at a time
    "adapters/test_sshd.py": "sshd",  # looks for the sshd that listens, and starts one
}
# What make test-fast leaves out: long waits, and the sweeps of one file's worth.
_SLOW = (
    "adapters/test_key_file_crash.py",
    "adapters/test_key_file_races.py",
    "adapters/test_sshd.py::test_an_sshd_that_does_not_answer",
    "adapters/test_state.py::test_any_value_that_is_not_found_out_can_be_shown",
    "network/test_client.py::test_connection_outlives_the_interval",
    "service/test_clock.py",
    "service/test_daemon.py",
    "service/test_notify.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    about = "all seeds, pairs and seconds of the sweeps, of which a plain run takes a sample"
    parser.addoption("--full-sweep", action="store_true", help=about)


@pytest.fixture(scope="session")
def full_sweep(pytestconfig: pytest.Config) -> bool:
    """Whether a sweep shall leave nothing out."""
    return bool(pytestconfig.getoption("--full-sweep"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Gives the tests of the tables their marks (`--dist loadgroup` heeds the group), and leaves
    out what belongs to the full sweeps.
    """
    for item in items:
        name = item.nodeid.partition("tests/")[2]
        for beginning, group in _GROUPS.items():
            if name.startswith(beginning):
                item.add_marker(pytest.mark.xdist_group(group))
        if name.startswith(_SLOW):
            item.add_marker(pytest.mark.slow)
    if not config.getoption("--full-sweep"):
        left_out = [item for item in items if item.get_closest_marker("sweep")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
