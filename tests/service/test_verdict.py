"""The verdict of `keysync status`: its order, its exit code, and the tables of checks."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

from agent.config import Config
from agent.core.ledger import Failure, Ledger
from agent.core.listing import RejectedEntry
from agent.core.times import Moment
from agent.errors import (
    EXIT_HELD,
    EXIT_NO_WAY_IN,
    AnswerUnusable,
    ConfigInvalid,
    CredentialRejected,
    TargetFailed,
    TemporaryFailure,
)
from agent.service import problems, warnings
from agent.service.finding import Finding, Severity, duration
from agent.service.report import Problem
from agent.service.status import Status, TargetStatus
from agent.service.verdict import exit_code, judge_status

NOW = Moment("2026-01-01T00:00:00Z", "boot", 1000.0)


def status_with(kind: str, *, state_problem: str | None = None) -> Status:
    """A machine whose last cycle failed like this, and nothing else is wrong."""
    failure = Failure(NOW, NOW.at, kind, "It failed.", "Do this.")
    ledger = Ledger(last_success=NOW, last_failure=failure)
    return Status(NOW, Config(), ledger, (), state_problem=state_problem)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("credential_missing", CredentialRejected.exit_code),
        ("html_page", AnswerUnusable.exit_code),
        ("timeout", TemporaryFailure.exit_code),
        ("account_changed", EXIT_HELD),
        ("disk_full", TargetFailed.exit_code),
        ("a kind of a later version", TargetFailed.exit_code),
    ],
)
def test_a_failure_gives_its_exit_code(kind: str, code: int) -> None:
    """Exit codes: `status` returns that of the last failure, from its kind in the state."""
    findings = judge_status(status_with(kind))
    assert [one.severity for one in findings] == [Severity.PROBLEM]
    assert exit_code(findings) == code


def test_the_most_serious_problem_comes_first() -> None:
    """Exit codes: `status` returns the most serious of them, whichever check found it."""
    broken = ConfigInvalid("config_invalid", "It is wrong.", "Correct it.")
    failed = Problem("not_a_file", "It is a directory.", "Remove it.", TargetFailed.exit_code)
    targets = (TargetStatus("a", "/a"), TargetStatus("b", "/b", problem=failed))
    status = status_with("timeout", state_problem="no JSON")._replace(
        config_problem=broken, targets=targets, service=True
    )
    codes = [one.exit_code for one in judge_status(status)]
    assert codes == [EXIT_NO_WAY_IN, 78, 74, 74, 75, 75]
    assert exit_code(judge_status(status)) == EXIT_NO_WAY_IN


def test_a_warning_changes_no_exit_code() -> None:
    """Exit codes: 0 when nothing is wrong, and the first finding says so."""
    ledger = Ledger(last_success=NOW, rejected=(RejectedEntry(7, "not_a_key", "It is none."),))
    findings = judge_status(Status(NOW, Config(), ledger, ()))
    assert [one.severity for one in findings] == [Severity.OK, Severity.WARNING]
    assert exit_code(findings) == 0
    assert findings[0] == Finding(Severity.OK, "in sync 0 s ago; no agent is set up here")


@pytest.mark.parametrize(
    ("module", "table"), [(problems, problems.PROBLEMS), (warnings, warnings.WARNINGS)]
)
def test_every_check_is_in_its_table(module: ModuleType, table: tuple[object, ...]) -> None:
    """Commands: a check that nobody calls would find nothing."""
    checks = [
        function
        for function in vars(module).values()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and list(inspect.signature(function).parameters) == ["status"]
    ]
    assert len(checks) >= 9
    assert set(checks) == set(table)


def test_ages() -> None:
    """Commands: an age is told in one unit that a person takes in at a glance."""
    told = {0: "0 s", 119: "119 s", 120: "2 min", 7199: "119 min", 7200: "2 h"}
    told |= {172799: "47 h", 172800: "2 d", 10**8: "1157 d"}
    assert {seconds: duration(seconds) for seconds in told} == told
