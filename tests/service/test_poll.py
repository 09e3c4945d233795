"""What the result of one poll means for the next, and how it reads in a status line."""

from __future__ import annotations

import pytest

from agent.core.answer import Answer
from agent.core.backoff import Outcome
from agent.core.guards import Held
from agent.core.results import Result
from agent.errors import (
    AnswerUnusable,
    Busy,
    CredentialRejected,
    KeysyncError,
    TargetFailed,
    TemporaryFailure,
)
from agent.providers.vast import read_listing
from agent.service.poll import PollResult, where
from agent.service.report import ListingFacts, Problem, SyncReport, TargetReport

WELL = SyncReport(
    Result.IN_SYNC,
    "id",
    False,
    ListingFacts(3, 1, "now", False),
    (TargetReport("root", "/k", Result.IN_SYNC),),
)


def after(cause: KeysyncError | Held) -> PollResult:
    """A poll that ended with this."""
    result = Result.HELD if isinstance(cause, Held) else Result.FAILED
    report = SyncReport(result, "id", False, problem=Problem.of(cause))
    return PollResult(None, report)


@pytest.mark.parametrize(
    ("poll", "outcome"),
    [
        (PollResult(None, WELL), Outcome.ANSWERED),
        (after(Held("k", "m", "h")), Outcome.ANSWERED),
        (after(TargetFailed("k", "m", "h")), Outcome.ANSWERED),
        (after(TemporaryFailure("k", "m", "h")), Outcome.FAILED),
        (after(Busy("busy", "m", "h")), Outcome.ANSWERED),  # Incident 28
        (after(AnswerUnusable("k", "m", "h")), Outcome.FAILED),
        (after(CredentialRejected("k", "m", "h")), Outcome.REFUSED),
        (PollResult(), Outcome.FAILED),
    ],
)
def test_what_counts_as_a_failure_of_the_api(poll: PollResult, outcome: Outcome) -> None:
    """Only what the API did slows polling down; a held list is confirmed by regular polls."""
    assert poll.outcome is outcome


def test_what_the_api_asked_for_is_kept() -> None:
    """Polling: Retry-After comes through to the pace."""
    assert after(TemporaryFailure("k", "m", "h", 7.0)).retry_after == 7.0
    assert after(AnswerUnusable("k", "m", "h")).retry_after is None
    assert PollResult(None, WELL).retry_after is None
    assert PollResult().retry_after is None


@pytest.mark.parametrize(
    ("poll", "line"),
    [
        (PollResult(None, WELL), "in sync: 3 listed keys, 1 key file; next poll in 30 s"),
        (after(Held("k", "It is empty.", "h")), "held: It is empty; next poll in 30 s"),
        (after(TargetFailed("k", "No disk.", "h")), "failed: No disk; next poll in 30 s"),
        (PollResult(), "failed: unexpected error, see the log; next poll in 30 s"),
    ],
)
def test_the_status_is_in_plain_words(poll: PollResult, line: str) -> None:
    """What is, and what comes next."""
    assert poll.summary(30.4) == line


def test_the_place_of_a_defect_is_keysyncs_own() -> None:
    """G10: where, by file and line; the text of the exception is left out."""
    with pytest.raises(AttributeError) as caught:
        read_listing(Answer(200, None), 2048)  # type: ignore[arg-type]  # reason: the defect
    assert where(caught.value).startswith("providers/vast.py:")
    assert "NoneType" not in where(caught.value)


def test_a_defect_elsewhere_has_no_place() -> None:
    """Logs: nothing is made up."""
    assert where(ValueError("never raised")) == ""
