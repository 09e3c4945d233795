"""The problems that `keysync status` finds, one check at a time."""

from __future__ import annotations

import pytest

from agent.config import Config
from agent.core.ledger import ALL_TARGETS, Failure, Hold, Ledger
from agent.core.times import Moment
from agent.errors import EXIT_HELD, TargetFailed
from agent.service.finding import Severity
from agent.service.report import Problem
from agent.service.status import Status, TargetStatus
from agent.service.verdict import judge_status

NOW = Moment("2026-01-01T00:00:00Z", "boot", 1000.0)


def problems_of(status: Status) -> list[tuple[int, str]]:
    """Exit code and text of each."""
    found = judge_status(status)
    return [(one.exit_code, one.text) for one in found if one.severity is Severity.PROBLEM]


def failed(kind: str, message: str) -> Ledger:
    """What a machine remembers whose last cycle failed like this, after a success."""
    return Ledger(last_success=NOW, last_failure=Failure(NOW, NOW.at, kind, message, "Do this."))


def test_the_failure_of_a_target_is_reported_once() -> None:
    """Commands: never the same fact twice: the target's own problem says it."""
    problem = Problem("not_a_file", "/k is a directory.", "Remove it.", TargetFailed.exit_code)
    target = TargetStatus("root", "/k", problem=problem)
    status = Status(NOW, Config(), failed("not_a_file", "/k is a directory."), (target,))
    assert problems_of(status) == [(74, "/k is a directory.")]
    another = status._replace(ledger=failed("not_a_file", "/other is a directory."))
    assert len(problems_of(another)) == 2


def test_a_state_that_cannot_be_written_is_reported_once() -> None:
    """G11: the cycle's failure and what is found now are the same disk."""
    text = "Could not write /var/lib/keysync/state.json: the disk is full."
    obstacle = Problem("disk_full", text, "Free some space.", TargetFailed.exit_code)
    status = Status(NOW, Config(), failed("disk_full", text), (), state_obstacle=obstacle)
    assert problems_of(status) == [(74, f"{text} Deleted keys are removed; new ones wait.")]


def test_sshd_that_could_not_be_asked_is_reported_once() -> None:
    """Incident 14: the target is named, with the file that is used instead."""
    target = TargetStatus("root", "/k", unsure="exit status 255")
    ledger = failed("sshd_not_asked", "sshd could not be asked")
    found = problems_of(Status(NOW, Config(), ledger, (target,)))
    assert [code for code, _ in found] == [4, 74]
    assert found[1][1].endswith("so /k was used: exit status 255.")


@pytest.mark.parametrize(("seen", "count"), [(1, 1), (3, 0)])
def test_a_hold_is_a_problem_until_it_is_applied(seen: int, count: int) -> None:
    """G3: an applied hold waits for nobody; who is locked out is another problem."""
    hold = Hold("empty_listing", seen, 3, 300.0, 300.0, NOW.at, NOW)
    ledger = Ledger(last_success=NOW, holds={ALL_TARGETS: hold})
    found = problems_of(Status(NOW, Config(), ledger, ()))
    assert [code for code, _ in found] == [EXIT_HELD] * count
    for _, text in found:
        assert text.startswith("held until about 2026-01-01T00:01:00Z for all targets: ")


def test_a_service_whose_agent_never_ran() -> None:
    """Incident 22: where a service is set up, a missing agent is a problem."""
    status = Status(NOW, Config(), Ledger(last_success=NOW), (), service=True)
    assert problems_of(status) == [(75, "the agent is not running (it has never run here)")]
    assert problems_of(status._replace(service=False)) == []
