"""Hypothesis: no deadlines, since machines are shared; the same examples in every CI run. And what
a run takes: the sweeps in full, what is slow, and what one worker does in a row.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.support.own_mounts import own_accounts

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
# For the edit loop (make test-fast).
settings.register_profile("fast", deadline=None, max_examples=20)
# For the model check (tests/attacks/test_model.py): an hour or so on a quiet machine.
settings.register_profile("long", deadline=None, max_examples=3000)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# What make test-fast leaves out: long waits, and the sweeps of one file's worth.
SLOW = (
    "adapters/test_key_file_crash.py",
    "adapters/test_key_file_races.py",
    "adapters/test_sshd_config.py::test_an_sshd_that_does_not_answer",
    "adapters/test_state.py::test_any_value_that_is_not_found_out_can_be_shown",
    "network/test_client.py::test_connection_outlives_the_interval",
    "service/test_clock.py",
    "service/test_daemon.py",
    "service/test_sd_notify.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    about = "all seeds, pairs and seconds of the sweeps, of which a plain run takes a sample"
    parser.addoption("--full-sweep", action="store_true", help=about)


@pytest.fixture(scope="session")
def full_sweep(pytestconfig: pytest.Config) -> bool:
    """Whether a sweep shall leave nothing out."""
    return bool(pytestconfig.getoption("--full-sweep"))


def pytest_configure(config: pytest.Config) -> None:
    """Each worker of a run as root has accounts of its own."""
    if hasattr(config, "workerinput") and os.geteuid() == 0:
        own_accounts(int(config.workerinput["workerid"].removeprefix("gw")))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Only in a run with workers."""
    from tests.support.groups import Groups

    return Groups(config, log)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks what is slow."""
    if item.nodeid.partition("tests/")[2].startswith(SLOW):
        item.add_marker(pytest.mark.slow)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what belongs to the full sweeps."""
    if config.getoption("--full-sweep"):
        return
    left_out = [item for item in items if item.get_closest_marker("sweep")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
