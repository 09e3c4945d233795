"""All files of one user, read, judged and written together, on real files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.adapters.disk import Owner
from agent.adapters.state import StateDirectory
from agent.core.authorized_keys import Line
from agent.core.ledger import Ledger
from agent.core.listing import Listing
from agent.core.plan import Wanted
from agent.core.policy import HoldRule, LockoutGuard
from agent.core.times import Moment
from agent.service.accounts import Origin
from agent.service.target_sync import Books
from agent.service.targets import Place
from agent.service.user_sync import FoundPlace, UserResult, UserSync, by_user
from tests.core.support import TAG, by_blob, ed25519, listed

NOW = Moment("2026-01-01T00:00:00Z", "boot", 1000.0)
KEYS = tuple(map(ed25519, range(4)))
LISTED, REVOKED, FOREIGN, OTHER = (key.line() + b"\n" for key in KEYS)
MANAGED = KEYS[0].line() + b" " + TAG + b"\n"
NEW = KEYS[0].line() + b" laptop " + TAG + b"\n"
RESTRICTED = b'command="backup" ' + LISTED
ACCOUNT = Listing((listed(KEYS[0], "laptop", 10),), (), 7)
WANTED = Wanted(
    listed=by_blob(*ACCOUNT.keys),
    pins={},
    known={KEYS[0].fingerprint: 10, KEYS[1].fingerprint: 11},
    present=ACCOUNT.present,
)


def opens_session(line: Line) -> bool:
    return line.opens_session


@dataclass
class World:
    """A folder of key files and the state of one cycle."""

    folder: Path
    ledger: Ledger = field(default_factory=Ledger)
    state_works: bool = True

    def __post_init__(self) -> None:
        self.state = StateDirectory(str(self.folder / "state"))
        if self.state_works:
            (self.folder / "state").mkdir(mode=0o700)
        self.books = Books(self.state, "abcd", NOW.at)
        rule = HoldRule(3, 300.0, 30.0)
        self.guard = LockoutGuard(ACCOUNT, self.ledger, rule, NOW, confirmed=False)

    def place(
        self,
        name: str,
        data: bytes | None,
        *,
        user: str = "al",
        main: bool = True,
        origin: Origin = Origin.CONFIGURED,
    ) -> FoundPlace:
        path = self.folder / name
        if data is not None:
            path.write_bytes(data)
            path.chmod(0o600)
        owner = Owner(os.geteuid(), os.getegid(), str(self.folder))
        return FoundPlace(Place(user, str(path), owner, main), origin)

    def serve(
        self,
        *found: FoundPlace,
        may_enter: bool = True,
        all_held: bool = False,
        dry_run: bool = False,
    ) -> UserResult:
        return UserSync(found[0].place.user, found, WANTED).serve(
            self.guard,
            opens_session,
            self.books,
            may_enter=may_enter,
            all_held=all_held,
            dry_run=dry_run,
        )

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


@pytest.fixture
def world(tmp_path: Path) -> World:
    tmp_path.chmod(0o700)
    return World(tmp_path)


def results(result: UserResult) -> list[str]:
    return [report.result for report in result.reports]


def removed(result: UserResult) -> list[list[str]]:
    """What left each file, by the key's number."""
    numbers = {key.fingerprint: str(at) for at, key in enumerate(KEYS)}
    return [
        [numbers[entry.fingerprint] for entry in report.entries["removed"]]
        for report in result.reports
    ]


def test_every_file_of_the_user_is_served(world: World) -> None:
    """R1, R5: keys are added to the first file, and revoked in all of them."""
    first = world.place("first", FOREIGN)
    second = world.place("second", REVOKED + OTHER, main=False)
    result = world.serve(first, second)
    assert (world.read("first"), world.read("second")) == (FOREIGN + NEW, OTHER)
    assert results(result) == ["changed", "changed"]
    assert removed(result) == [[], ["1"]]
    again = world.serve(first, second)
    assert results(again) == ["in_sync", "in_sync"]


def test_a_restriction_in_one_file_holds_in_the_others(world: World) -> None:
    """R4, incident 11: whichever target names the file; no plain key beside `command=`."""
    first = world.place("first", FOREIGN)
    second = world.place("second", RESTRICTED)
    result = world.serve(first, second)
    assert (world.read("first"), world.read("second")) == (FOREIGN, RESTRICTED)
    assert results(result) == ["in_sync", "in_sync"]


def test_a_managed_line_beside_a_restriction_in_another_file_goes(world: World) -> None:
    """R4, incident 11: in whichever of the user's files it stands."""
    first = world.place("first", FOREIGN + MANAGED)
    second = world.place("second", RESTRICTED, main=False)
    world.serve(first, second)
    assert (world.read("first"), world.read("second")) == (FOREIGN, RESTRICTED)


def test_a_further_file_that_is_not_there_is_not_made(world: World) -> None:
    """R6: only the file that sshd reads first."""
    result = world.serve(world.place("first", None), world.place("second", None, main=False))
    assert world.read("first") == NEW
    assert not (world.folder / "second").exists()
    assert results(result) == ["changed"]


def test_a_retired_file_loses_deleted_keys_and_gets_none(world: World) -> None:
    """R5, incident 9: revocations still reach a target that was taken out."""
    retired = world.place("old", REVOKED + FOREIGN, origin=Origin.RETIRED)
    result = world.serve(retired)
    assert world.read("old") == FOREIGN
    assert (results(result), removed(result)) == (["changed"], [["1"]])
    assert result.reports[0].origin == "retired"
    assert not result.locked_out


# ---- G3 ----

LOCKED = RESTRICTED + REVOKED


def test_a_user_who_would_be_locked_out_is_held_and_nobody_else(world: World) -> None:
    """G3, incident 3: what stands in one user's file holds up no other user."""
    al = world.serve(world.place("al", LOCKED))
    root = world.serve(world.place("root", REVOKED + FOREIGN, user="root"))
    assert al.judgement.held
    assert al.judgement.held.user == "al"
    assert results(al) == ["held"]
    assert [one.fingerprint for one in al.reports[0].would_remove] == [KEYS[1].fingerprint]
    assert world.read("al") == LOCKED
    assert root.judgement.held is None
    assert world.read("root") == FOREIGN + NEW


def test_all_files_of_a_held_user_stay(world: World) -> None:
    """G3: the files are judged together, and held together."""
    result = world.serve(world.place("first", LOCKED), world.place("second", REVOKED, main=False))
    assert results(result) == ["held", "held"]
    assert (world.read("first"), world.read("second")) == (LOCKED, REVOKED)


def test_what_is_held_for_all_changes_nothing(world: World) -> None:
    """G3: and says what would go."""
    result = world.serve(world.place("first", REVOKED + FOREIGN), all_held=True)
    assert world.read("first") == REVOKED + FOREIGN
    assert results(result) == ["held"]
    assert [one.fingerprint for one in result.reports[0].would_remove] == [KEYS[1].fingerprint]


def test_a_user_whom_no_key_lets_in_is_named(world: World) -> None:
    """Incident 4: also when nothing changed."""
    assert world.serve(world.place("first", RESTRICTED)).locked_out
    assert not world.serve(world.place("second", FOREIGN)).locked_out


# ---- failures ----


def test_one_files_failure_stops_no_other(world: World) -> None:
    """R11: and nobody is called locked out because a file could not be read."""
    (world.folder / "first").mkdir()
    result = world.serve(
        world.place("first", None), world.place("second", REVOKED + RESTRICTED, main=False)
    )
    assert results(result)[0] == "failed"
    assert not result.locked_out
    other = world.place("third", REVOKED + FOREIGN, main=False)
    result = world.serve(world.place("first", None), other)
    assert results(result) == ["failed", "changed"]
    assert world.read("third") == FOREIGN


def test_without_bookkeeping_deleted_keys_go_and_nothing_enters(tmp_path: Path) -> None:
    """G11, incident 2: revocation outranks the state that cannot be written."""
    tmp_path.chmod(0o700)
    world = World(tmp_path, state_works=False)
    result = world.serve(world.place("first", REVOKED + FOREIGN))
    assert world.read("first") == FOREIGN
    assert removed(result) == [["1"]]
    assert world.books.problem is not None
    plain = world.serve(world.place("second", LISTED + FOREIGN))
    assert world.read("second") == LISTED + FOREIGN
    assert results(plain) == ["failed"]  # R3: it is not adopted yet


def test_what_could_not_be_recorded_does_not_enter(world: World) -> None:
    """G11: a key is recorded before it is written into a file; deleted ones go all the same."""
    result = world.serve(world.place("first", REVOKED + FOREIGN), may_enter=False)
    assert world.read("first") == FOREIGN
    assert removed(result) == [["1"]]


def test_a_dry_run_says_what_would_be_done(world: World) -> None:
    """Commands: and writes nothing."""
    result = world.serve(world.place("first", REVOKED + FOREIGN), dry_run=True)
    assert world.read("first") == REVOKED + FOREIGN
    assert (results(result), removed(result)) == (["changed"], [["1"]])
    assert [one.fingerprint for one in result.reports[0].entries["added"]] == [KEYS[0].fingerprint]
    assert list((world.folder / "state").iterdir()) == []


# ---- the order of users ----


def order(found: Sequence[FoundPlace]) -> list[tuple[str, int]]:
    return [(user, len(places)) for user, places in by_user(found)]


def test_a_user_with_large_files_keeps_nobody_waiting(world: World) -> None:
    """G12: the users with little to read come first; a user's files stay together."""
    found = [
        world.place("a", b"#" * 5000, user="al"),
        world.place("b", b"#" * 100, user="bo"),
        world.place("c", None, user="cy"),
        world.place("d", b"#" * 100, user="bo", main=False),
    ]
    assert order(found) == [("cy", 1), ("bo", 2), ("al", 1)]
