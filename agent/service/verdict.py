"""The verdict of `keysync status`: every finding, the most serious first, and the exit code.

The checks themselves are in problems.py and warnings.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.errors import (
    EXIT_HELD,
    EXIT_NO_WAY_IN,
    EXIT_OK,
    AnswerUnusable,
    ConfigInvalid,
    CredentialRejected,
    TargetFailed,
    TemporaryFailure,
)
from agent.service.finding import Finding, Severity, duration
from agent.service.problems import PROBLEMS
from agent.service.status import Status
from agent.service.warnings import WARNINGS

_MOST_SERIOUS_FIRST = (
    EXIT_NO_WAY_IN,  # nobody can log in as a user
    ConfigInvalid.exit_code,  # the agent does not start, or uses an earlier configuration
    TargetFailed.exit_code,  # a file or the state cannot be read or written, or sshd not asked
    CredentialRejected.exit_code,
    AnswerUnusable.exit_code,
    TemporaryFailure.exit_code,  # no recent answer, or no agent that could act on one
    EXIT_HELD,  # something waits for a person
)


def judge_status(status: Status) -> list[Finding]:
    """Every finding, the most serious first; when nothing is wrong the first one says so."""
    problems = [finding for check in PROBLEMS for finding in check(status)]
    problems.sort(key=lambda finding: _MOST_SERIOUS_FIRST.index(finding.exit_code))
    warnings = [finding for check in WARNINGS for finding in check(status)]
    return (problems or [Finding(Severity.OK, _success_text(status))]) + warnings


def exit_code(findings: Sequence[Finding]) -> int:
    """The exit code of the most serious finding."""
    return findings[0].exit_code if findings else EXIT_OK


def _success_text(status: Status) -> str:
    age, beat = status.age, status.heartbeat
    parts = ["no sync yet" if age is None else f"in sync {duration(age)} ago"]
    if beat is None:
        parts.append("no agent is set up here")
    else:
        parts.append(f"the agent has been running since {beat.started.at}")
    if status.next_poll_s is not None:
        parts.append(f"next poll in {duration(status.next_poll_s)}")
    return "; ".join(parts)
