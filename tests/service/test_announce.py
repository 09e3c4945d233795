"""Which events a cycle causes, and how many at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from agent import events
from agent.adapters.files.atomic import Owner
from agent.adapters.files.file_mode import ModeChange
from agent.config import Target
from agent.core.desired_keys import Entry, Reason
from agent.core.known_keys import KnownKey
from agent.core.ledger import MAX_SKIPPED, Ledger, Retired, SkippedFile, TargetOutcome, WaitingKey
from agent.core.listing import Listing, RejectedEntry
from agent.core.results import CHANGES, STANDING, Origin, Result
from agent.errors import TargetFailed
from agent.service.announce import (
    MAX_ADDITIONS,
    MAX_EVENTS,
    announce_files,
    announce_rejected,
    announce_skipped,
    announce_target,
    announce_waiting,
    locked_out,
)
from agent.service.locate import KeyFileLocation
from agent.service.report import Problem, SyncReport, TargetReport
from agent.service.served_files import ServedFile, ServedFiles
from agent.service.target_users import Skipped

DAY_1, DAY_2, DAY_3 = (f"2026-01-0{day}T00:00:00Z" for day in (1, 2, 3))


def entries(count: int, reason: Reason = "") -> tuple[Entry, ...]:
    return tuple(Entry(f"SHA256:{at}", "ssh-rsa", "", at, reason) for at in range(count))


def announced(report: TargetReport, ledger: Ledger | None = None) -> list[events.Event]:
    found: list[events.Event] = []
    announce_target(report, ledger or Ledger(), found.append)
    return found


def names(found: Sequence[events.Event]) -> dict[str, int]:
    return dict(Counter(event.name for event in found))


def report(**found: tuple[Entry, ...]) -> TargetReport:
    entries = {name: found.get(name, ()) for name in (*CHANGES, *STANDING)}
    return TargetReport("al", "/a", Result.CHANGED, entries)


# ---- what was done to each key ----


def test_every_change_is_an_event() -> None:
    """G14: each with the user, the file, the key and the reason."""
    found = announced(report(added=entries(2), adopted=entries(1), removed=entries(1, "unlisted")))
    assert names(found) == {"key.added": 2, "key.adopted": 1, "key.removed": 1}
    assert found[-1] == events.KeyRemoved(
        user="al",
        path="/a",
        fingerprint="SHA256:0",
        key_type="ssh-rsa",
        comment="",
        key_id=0,
        reason="unlisted",
    )
    assert announced(report(kept=entries(3), foreign=entries(3), restricted=entries(3))) == []


def test_a_file_of_several_users_is_announced_and_counted_once() -> None:
    """R10, G12: each line was written once, however many users read it."""
    first = report(added=entries(2))
    second = replace(first, user="bo", repeats=True)
    assert announced(second) == []
    assert (
        SyncReport(Result.CHANGED, "abcd", dry_run=False, targets=(first, second)).count("added")
        == 2
    )


def test_a_restricted_line_of_a_deleted_key_is_a_warning() -> None:
    """R4: it stays, and it is said."""
    found = announced(report(restricted=entries(1, "revoked")))
    assert (names(found), found[0].level) == ({"key.still_authorized": 1}, "warning")


def known(*, result: Result, at: str) -> Ledger:
    """A key that was revoked on the second day, and how the file was at last."""
    key = KnownKey("SHA256:0", "ssh-rsa", "", 0, DAY_1, DAY_2)
    outcome = TargetOutcome("al", "/a", result, at)
    return Ledger(keys={key.fingerprint: key}, targets=(outcome,))


def test_a_deleted_key_that_is_put_back_has_an_event_of_its_own() -> None:
    """R5: also in a file that never held it, and has been in sync since before it was deleted."""
    gone = report(removed=entries(1, "revoked"))
    for at in (DAY_1, DAY_2, DAY_3):
        for result in (Result.CHANGED, Result.IN_SYNC):
            found = announced(gone, known(result=result, at=at))
            assert names(found) == {"key.reappeared": 1}


def test_a_deleted_key_that_had_not_gone_yet_did_not_come_back() -> None:
    """R5: where it was held, or the file could not be written, or was no target."""
    gone = report(removed=entries(1, "revoked"))
    for ledger in (
        known(result=Result.HELD, at=DAY_2),
        known(result=Result.FAILED, at=DAY_2),
        Ledger(),
    ):
        assert names(announced(gone, ledger)) == {"key.removed": 1}
    elsewhere = TargetReport("al", "/b", Result.CHANGED, {"removed": entries(1, "revoked")})
    assert names(announced(elsewhere, known(result=Result.IN_SYNC, at=DAY_3))) == {"key.removed": 1}


def test_a_problem_and_a_changed_mode_are_events() -> None:
    """R11, G9, incident 25."""
    found = announced(
        TargetReport(
            "al",
            "/a",
            Result.FAILED,
            problem=Problem("disk_full", "It is full.", "Make room.", 74),
            mode_changes=(ModeChange("/home/al/.ssh", 0o777, 0o700, 1000, 1000),),
        )
    )
    assert found[0] == events.TargetProblem(
        user="al", path="/a", kind="disk_full", message="It is full.", hint="Make room."
    )
    assert found[1] == events.TargetModeChanged(
        user="al", path="/home/al/.ssh", before="0777", after="0700"
    )


# ---- G12 ----


def test_one_file_causes_a_bounded_number_of_lines() -> None:
    """Incident 17: 240,000 forged managed lines, and one summary."""
    found = announced(report(removed=entries(240_000, "unlisted"), adopted=entries(3)))
    assert names(found) == {"key.removed": MAX_EVENTS, "key.adopted": 3, "events.omitted": 1}
    assert found[-1] == events.EventsOmitted(
        omitted_event="key.removed", count=240_000 - MAX_EVENTS, user="al", path="/a"
    )


def test_every_addition_of_an_ordinary_list_is_said() -> None:
    """G14: a stolen credential cannot hide one key behind twenty others."""
    assert names(announced(report(added=entries(MAX_ADDITIONS)))) == {"key.added": MAX_ADDITIONS}
    many = names(announced(report(added=entries(MAX_ADDITIONS + 1))))
    assert many == {"key.added": MAX_ADDITIONS, "events.omitted": 1}


# ---- refused entries ----


def refused(count: int, first: int = 0) -> tuple[RejectedEntry, ...]:
    return tuple(RejectedEntry(at, "not_a_key", "…") for at in range(first, first + count))


def said(now: Sequence[RejectedEntry], before: Sequence[RejectedEntry] = ()) -> dict[str, int]:
    """What is announced after the listing with `before` was remembered."""
    ledger = Ledger().record_listing(Listing((), tuple(before), 7), DAY_1)
    found: list[events.Event] = []
    announce_rejected(now, ledger.rejected, found.append)
    return names(found)


def test_a_refused_entry_is_said_once_until_it_changes() -> None:
    """G2: by name and reason."""
    assert said(refused(2)) == {"key.rejected": 2}
    assert said(refused(2), refused(2)) == {}
    changed = (RejectedEntry(0, "not_a_key", "something else"), *refused(1, 1))
    assert said(changed, refused(2)) == {"key.rejected": 1}


def test_many_refused_entries_are_a_bounded_number_of_lines() -> None:
    """Incident 18: 5,000 bad entries with changing ids in each poll."""
    assert said(refused(5_000), refused(5_000, 5_000)) == {
        "key.rejected": MAX_EVENTS,
        "events.omitted": 1,
    }


def test_many_refused_entries_are_said_once() -> None:
    """G2, G12: also those for whose names there is no room."""
    assert said(refused(5_000), refused(5_000)) == {}


def test_what_was_left_out_is_counted() -> None:
    """G12: the summary says how many entries have no line of their own."""
    found: list[events.Event] = []
    announce_rejected(refused(5_000), (), found.append)
    assert found[-1] == events.EventsOmitted(
        omitted_event="key.rejected", count=5_000 - MAX_EVENTS, user="", path=""
    )


def test_keys_that_wait_are_a_bounded_number_of_lines() -> None:
    """G12, G14: of a list of 5,000 new keys too; the rest are counted."""
    found: list[events.Event] = []
    new = [WaitingKey(f"SHA256:{at}", "ssh-rsa", "", at, DAY_1) for at in range(5000)]
    announce_waiting(new, (), found.append)
    assert names(found) == {"key.held": MAX_ADDITIONS, "events.omitted": 1}
    assert found[-1] == events.EventsOmitted(omitted_event="key.held", count=4000, user="", path="")


def test_a_user_without_a_way_in_is_an_error() -> None:
    """Incident 4: with every file, and what to do."""
    event = locked_out("al", [TargetReport("al", p, Result.IN_SYNC) for p in ("/a", "/b")], ())
    assert (event.level, event.user) == ("error", "al")
    assert "/a, /b" in str(event)


def skipped(count: int, kind: str = "not_a_file") -> list[Skipped]:
    error = TargetFailed(kind, "It is a symbolic link.", "Put a file in its place.")
    return [
        Skipped(KeyFileLocation(f"u{at}", f"/u{at}", Owner(at, at)), error) for at in range(count)
    ]


def announced_skips(
    found: Sequence[Skipped], known: Sequence[SkippedFile] = ()
) -> list[events.Event]:
    told: list[events.Event] = []
    announce_skipped(found, known, told.append)
    return told


def test_a_file_that_cannot_be_searched_is_announced_until_that_changes() -> None:
    """R5, G12: each once, and again where the reason is another one."""
    found = skipped(2)
    known = [one.file for one in found]
    assert announced_skips(found)[1] == events.AccountSkipped(
        user="u1",
        path="/u1",
        kind="not_a_file",
        message="It is a symbolic link.",
        hint="Put a file in its place.",
    )
    assert announced_skips(found, known) == []
    assert names(announced_skips(skipped(3), known)) == {"account.skipped": 1}
    assert names(announced_skips(skipped(2, "hard_link"), known)) == {"account.skipped": 2}


def test_a_machine_full_of_odd_files_causes_a_bounded_number_of_lines() -> None:
    """G12: beyond the bound there is one summary, and no other while nothing changes."""
    found = skipped(MAX_SKIPPED + 1000)
    told = announced_skips(found)
    assert names(told) == {"account.skipped": MAX_EVENTS, "events.omitted": 1}
    more = MAX_SKIPPED + 1000 - MAX_EVENTS
    assert told[-1] == events.EventsOmitted(
        omitted_event="account.skipped", count=more, user="", path=""
    )
    assert announced_skips(found, [one.file for one in found[:MAX_SKIPPED]]) == []


def test_a_user_who_was_not_found_is_not_called_a_target_that_was() -> None:
    """R11: the failure of the target is told elsewhere."""
    error = TargetFailed("unknown_user", "There is no user 'al'.", "Create it.")
    lost = ServedFile(KeyFileLocation.missing(Target("al")), Origin.AUTO, error)
    told: list[events.Event] = []
    announce_files(ServedFiles([lost], (), []), Ledger(), told.append)
    assert told == []


def test_a_target_is_retired_once() -> None:
    """G12: not with every cycle in which its file is watched."""
    old, new = (Retired("al", path, "2026-01-01T00:00:00Z") for path in ("/old", "/new"))
    told: list[events.Event] = []
    announce_files(ServedFiles([], (old, new), []), Ledger(retired=(old,)), told.append)
    [event] = told
    assert isinstance(event, events.TargetRetired)
    assert (event.path, event.hint.endswith("keysync forget /new")) == ("/new", True)
