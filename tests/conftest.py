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

# What make test-fast leaves out: waits, the largest inputs there may be, and sweeps of one file.
SLOW = (
    "adapters/test_key_file.py::test_a_lock_held_for_ever_does_not_stop_a_sync",
    "adapters/test_key_file.py::test_padding_puts_no_file_out_of_reach",
    "adapters/test_key_file_crash.py",
    "adapters/test_key_file_races.py",
    "adapters/test_sshd_config.py::test_an_sshd_that_does_not_answer",
    "adapters/test_state.py::test_a_second_sync_waits_for_the_first",
    "adapters/test_state.py::test_any_value_that_is_not_found_out_can_be_shown",
    "adapters/test_state.py::test_any_wrong_value_is_found_out_or_harmless",
    "adapters/test_state.py::test_the_account_of_a_ledger_that_is_too_large_is_kept",
    "adapters/test_state.py::test_the_largest_ledger_can_be_read_again",
    "cli/test_status.py::test_an_agent_that_is_gone",
    "cli/test_stolen_api_key.py::test_a_forgotten_revocation_is_one_line",
    "cli/test_sync.py::test_log_while_waiting",
    "cli/test_sync.py::test_wait_for_a_console_that_comes_up",
    "core/test_authorized_keys.py::test_the_options_of_a_file_are_read_up_to_a_bound",
    "core/test_key_search.py::test_the_search_costs_no_more_for_each_line_of_a_longer_file",
    "core/test_ledger.py::test_a_flood_of_keys_evicts_no_key_of_long_standing",
    "core/test_ledger.py::test_a_key_that_was_deleted_just_now_is_not_the_one_to_forget",
    "core/test_ledger.py::test_lists_as_long_as_may_be_make_no_deleted_key_forgotten",
    "core/test_ledger.py::test_of_too_many_keys_the_longest_revoked_is_forgotten",
    "core/test_options.py::test_a_long_field_costs_no_more_than_its_length",
    "network/test_client.py::test_connection_outlives_the_interval",
    "service/test_announce.py::test_one_file_causes_a_bounded_number_of_lines",
    "service/test_clock.py",
    "service/test_daemon.py",
    "service/test_sd_notify.py",
    "test_suite.py::test_a_group_is_one_workers",
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
        own_accounts()


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
