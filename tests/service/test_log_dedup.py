"""What is logged of a state that lasts: its beginning, its change and its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agent import daemon_events, events
from agent.core.results import Result, Trigger
from agent.core.times import Moment
from agent.log import make_emit
from agent.service.log_dedup import StreakFilter
from tests.support.event_fields import KEY, NO_CHANGES

WELL = events.SyncCompleted(
    sync_id="id",
    result=Result.IN_SYNC,
    duration_ms=1,
    listed=2,
    rejected=0,
    not_modified=False,
    **NO_CHANGES,
)
DEFECT = daemon_events.AgentFailed(
    kind="KeyError", where="service/cycle.py:1 sync", failing_since="2026-05-01T10:00:00Z"
)


START = Moment("2026-05-01T10:00:00Z", "boot", 1000.0)


def recovered(kind: str, failures: int, lasted_s: int) -> daemon_events.SyncRecovered:
    return daemon_events.SyncRecovered(
        sync_id="id", kind=kind, failures=failures, lasted_s=lasted_s
    )


def failed(kind: str, message: str = "m") -> events.SyncFailed:
    return events.SyncFailed(
        sync_id="id",
        kind=kind,
        message=message,
        hint="h",
        duration_ms=1,
        listed=None,
        rejected=0,
        listing_age_s=None,
        failing_since=START.at,
        **NO_CHANGES,
    )


def held(kind: str) -> events.SyncHeld:
    return events.SyncHeld(
        sync_id="id",
        kind=kind,
        message="m",
        hint="h",
        duration_ms=1,
        listed=2,
        rejected=0,
        listing_age_s=None,
        failing_since=START.at,
        **NO_CHANGES,
    )


def locked_out(user: str) -> events.UserLockedOut:
    return events.UserLockedOut(
        sync_id="id", user=user, paths=f"/home/{user}", reason="the listing is empty", hint="h"
    )


def broken(user: str, kind: str = "hard_link") -> events.TargetProblem:
    return events.TargetProblem(
        sync_id="id", user=user, path=f"/home/{user}", kind=kind, message="m", hint="h"
    )


def still(fingerprint: str) -> events.KeyStillAuthorized:
    return events.KeyStillAuthorized(
        sync_id="id",
        user="root",
        path="/k",
        fingerprint=fingerprint,
        key_type="t",
        comment="",
        key_id=1,
        reason="revoked",
    )


def passed(*given: events.Event) -> Sequence[events.Event]:
    """What comes through, in order."""
    found: list[events.Event] = []
    news = StreakFilter(found.append, lambda: START)
    for event in given:
        news(event)
    return found


def names(*given: events.Event) -> list[str]:
    return [event.name for event in passed(*given)]


def test_a_streak_is_its_first_failure_and_its_end() -> None:
    """Logs: not every repetition; the end says what it was, how often and how long."""
    first = failed("timeout")
    end = recovered("timeout", 3, 0)
    assert passed(first, failed("timeout"), failed("timeout"), WELL) == [first, end, WELL]


def test_a_change_of_kind_is_news() -> None:
    """Logs: each change of kind is said, also back to one that was said before."""
    kinds = ["timeout", "timeout", "html_page", "html_page", "timeout"]
    found = passed(*(failed(kind) for kind in kinds))
    assert found == [failed("timeout"), failed("html_page"), failed("timeout")]


def test_held_and_failed_are_different_news() -> None:
    """Logs: a hold that follows a failure is said, whatever its kind is called."""
    assert names(failed("k"), held("k"), held("k")) == ["sync.failed", "sync.held"]


def test_one_recovery_for_a_streak_of_several_kinds() -> None:
    """Logs: the streak lasts from the first failure to the first cycle in sync."""
    found = passed(failed("timeout"), held("empty_listing"), WELL, WELL)
    assert found[-3:] == [recovered("empty_listing", 2, 0), WELL, WELL]


def test_each_streak_begins_anew() -> None:
    """Logs: after the end the same failure is news again."""
    once = [failed("timeout"), WELL]
    assert names(*once, *once) == ["sync.failed", "sync.recovered", "sync.completed"] * 2


def test_cycles_that_go_well_are_each_said() -> None:
    """Logs: one canonical line per cycle."""
    assert passed(WELL, WELL, WELL) == [WELL, WELL, WELL]


def test_a_defect_is_a_streak_too() -> None:
    """Logs: an exception in every cycle is one line, and its end is said."""
    other = daemon_events.AgentFailed(
        kind="TypeError", where="service/cycle.py:1 sync", failing_since=START.at
    )
    found = passed(DEFECT, DEFECT, other, WELL)
    assert found == [DEFECT, other, recovered("TypeError", 3, 0), WELL]


def test_a_failing_target_is_said_once() -> None:
    """Logs: of one target among others too only the beginning, the change and the end."""
    cycle = [broken("a"), failed("hard_link")]
    changed = [broken("a", "not_a_file"), failed("not_a_file")]
    found = passed(*cycle, *cycle, *changed, WELL, *cycle)
    assert [event for event in found if isinstance(event, events.TargetProblem)] == [
        broken("a"),
        broken("a", "not_a_file"),
        broken("a"),
    ]


def test_a_target_that_failed_again_within_another_ones_streak_is_said_again() -> None:
    """Logs: what a cycle looked at and found well is over."""
    both = [broken("a"), broken("b"), failed("hard_link")]
    one = [broken("b"), failed("hard_link")]
    found = passed(*both, *one, *both)
    assert found.count(broken("a")) == 2
    assert found.count(broken("b")) == 1


def test_a_cycle_that_did_not_get_to_the_targets_ends_nothing() -> None:
    """Logs: a key that is still authorized is not said again because the network failed between."""
    found = passed(still("x"), WELL, failed("timeout"), still("x"), WELL)
    assert found.count(still("x")) == 1


def test_a_key_that_is_still_authorized_is_said_once_while_it_lasts() -> None:
    """R4, logs: said loudly, not every 30 seconds; after it was gone, again."""
    cycle = [still("x"), still("y"), WELL]
    found = passed(*cycle, *cycle, still("y"), WELL, *cycle)
    assert found.count(still("x")) == 2
    assert found.count(still("y")) == 1


def test_what_changes_is_never_kept_back() -> None:
    """Logs: one line per key that changes, also when another tool puts it back in every cycle."""
    back = events.KeyReappeared(**KEY, reason="revoked")
    assert passed(back, WELL, back, WELL) == [back, WELL, back, WELL]


def test_a_default_path_is_said_once() -> None:
    """Logs: that sshd cannot be asked is a state, not an event of each cycle."""
    default = events.TargetDefaulted(
        sync_id="id", user="root", path="/k", reason="no sshd is installed"
    )
    assert passed(default, WELL, default, WELL).count(default) == 1


class Passing:
    """What comes through, with the seconds since the start at which it did."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.found: list[tuple[float, str]] = []
        self.filter = StreakFilter(
            lambda event: self.found.append((self.seconds, event.name)),
            lambda: START.after(self.seconds),
        )

    def polls(self, *cycle: events.Event, hours: float, every: float = 30.0) -> None:
        end = self.seconds + hours * 3600
        while self.seconds < end:
            for event in cycle:
                self.filter(event)
            self.seconds += every


def test_a_streak_is_recalled_after_5_min_15_min_and_every_hour() -> None:
    """Incident 23, logs: whoever looks at the last hour of the log sees that it still fails."""
    passing = Passing()
    passing.polls(failed("timeout"), hours=3.01)
    assert [at for at, _ in passing.found] == [0, 300, 900, 3600, 7200, 10800]


def test_a_clock_of_the_wall_that_jumps_moves_no_reminder() -> None:
    """Incident 26: the steady clock counts, and the row's length with it."""
    now = START
    found: list[events.Event] = []
    news = StreakFilter(found.append, lambda: now)
    news(failed("timeout"))
    now = Moment("2027-05-01T10:00:00Z", "boot", START.seconds + 30)
    news(failed("timeout"))
    now = Moment("2020-05-01T10:00:00Z", "boot", START.seconds + 60)
    news(WELL)
    assert found[1] == recovered("timeout", 2, 60)


def test_another_message_of_the_same_kind_is_news() -> None:
    """Incident 27: a second wrong API key has another suffix."""
    assert passed(failed("k", "…1111"), failed("k", "…2222"), failed("k", "…2222")) == [
        failed("k", "…1111"),
        failed("k", "…2222"),
    ]


@pytest.mark.parametrize("kinds", [("a",), ("a", "b")])
def test_messages_and_kinds_that_change_each_time_do_not_flood(kinds: tuple[str, ...]) -> None:
    """G12: a server may put a number of its own into each answer, and alternate its failures."""
    passing = Passing()
    for at in range(5 * 120):
        passing.filter(failed(kinds[at % len(kinds)], f"request {at}"))
        passing.seconds += 30.0
    assert len(passing.found) < 5 * 8 + 5


def test_who_is_locked_out_is_said_once_and_recalled() -> None:
    """Incident 4: an error while it lasts, and no recovery although every file is in sync."""
    passing = Passing()
    passing.polls(held("empty_listing"), hours=1 / 60)
    passing.polls(locked_out("root"), WELL, hours=1.0)
    said = [at for at, name in passing.found if name == "user.locked_out"]
    assert said == [60, 300, 900, 3600]
    assert "sync.recovered" not in {name for _, name in passing.found}
    passing.filter(WELL)
    assert passing.found[-2][1] == "sync.recovered"


def test_each_user_who_is_locked_out_is_said() -> None:
    """Incident 4: another user is news; one who was let in meanwhile and is out again too."""
    a, b = locked_out("a"), locked_out("b")
    found = passed(a, WELL, a, b, WELL, b, WELL, a, b, WELL)
    assert [event for event in found if isinstance(event, events.UserLockedOut)] == [a, b, a]


def poll(result: Result = Result.IN_SYNC) -> events.SyncCompleted:
    return WELL.replace(result=result, trigger=Trigger.POLL)


def levels(*given: events.Event) -> Iterator[str]:
    for event in passed(*given):
        if isinstance(event, events.SyncCompleted):
            yield event.level


def test_unchanged_polls_are_for_debugging() -> None:
    """Incident 25, logs: the first poll, one that changed or found something, and one that a person
    asked for have a line at the usual level.
    """
    assert list(levels(poll(), poll(), still("x"), poll(), still("x"), poll())) == [
        *("info", "debug", "info", "debug")
    ]
    assert list(levels(poll(), WELL)) == ["info", "info"]


def test_a_poll_that_changed_something_has_its_line() -> None:
    """Logs: one canonical line per cycle that did something, also when its keys have none any more,
    as in the course of a contest.
    """
    assert list(levels(poll(), poll(Result.CHANGED), poll(Result.CHANGED), poll())) == [
        *("info", "info", "info", "debug")
    ]


def test_an_hour_without_changes_writes_less_than_3_kb(tmp_path: Path) -> None:
    """Incident 25: the default interval; four summaries are written besides."""
    with (tmp_path / "log").open("w+") as stream:
        emit = make_emit("info", "json", stream)
        news = StreakFilter(emit)
        for _ in range(120):
            news(WELL.replace(trigger=Trigger.POLL))
        for _ in range(4):
            emit(daemon_events.PollsSummarized(polls=30, failed=0, changed=0, since=START.at))
        stream.flush()
        assert 0 < (tmp_path / "log").stat().st_size < 3000
