"""All files of one user, read, judged and written together, on real files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.adapters.files.atomic import Owner
from agent.adapters.reserve import RESERVE_BYTES
from agent.adapters.sshd_config import Sshd
from agent.adapters.state import StateDirectory
from agent.core.authorized_keys import Line
from agent.core.desired_keys import DesiredKeys
from agent.core.guards import HoldRule, LockoutGuard
from agent.core.ledger import Ledger
from agent.core.listing import Listing
from agent.core.public_key import without_sshd
from agent.core.results import Origin
from agent.core.times import Moment
from agent.service.bookkeeping import Records
from agent.service.locate import KeyFileLocation
from agent.service.report import TargetReport
from agent.service.served_files import ServedFile
from agent.service.shared_files import serve_all
from agent.service.terms import Terms
from agent.service.user_sync import UserResult, UserSync, by_user
from sandbox.users import current_user
from tests.adapters.support import needs_root
from tests.core.support import TAG, by_blob, ed25519, listed
from tests.support.own_mounts import in_own_mounts, small_disk

NOW = Moment("2026-01-01T00:00:00Z", "boot", 1000.0)
KEYS = tuple(map(ed25519, range(4)))
LISTED, REVOKED, FOREIGN, OTHER = (key.line() + b"\n" for key in KEYS)
MANAGED = KEYS[0].line() + b" " + TAG + b"\n"
NEW = KEYS[0].line() + b" laptop " + TAG + b"\n"
RESTRICTED = b'command="backup" ' + LISTED
ACCOUNT = Listing((listed(KEYS[0], "laptop", 10),), (), 7)
WANTED = DesiredKeys(
    listed=by_blob(*ACCOUNT.keys),
    pins={},
    previously_listed={KEYS[0].fingerprint: 10, KEYS[1].fingerprint: 11},
    present=ACCOUNT.present,
)


def opens_session(line: Line) -> bool:
    return line.opens_session_for(without_sshd)


@dataclass
class World:
    """A folder of key files and the state of one cycle."""

    folder: Path
    ledger: Ledger = field(default_factory=Ledger)
    state_works: bool = True
    confirmed: bool = False
    desired: DesiredKeys = WANTED
    sshd: Sshd = field(default_factory=lambda: Sshd("/nowhere"))

    def __post_init__(self) -> None:
        self.state = StateDirectory(str(self.folder / "state"))
        if self.state_works:
            (self.folder / "state").mkdir(mode=0o700)
        self.records = Records(self.state, "abcd", NOW.at)
        self.now = NOW

    @property
    def guard(self) -> LockoutGuard:
        rule = HoldRule(3, 300.0, 30.0)
        return LockoutGuard(ACCOUNT, self.ledger, rule, self.now, confirmed=self.confirmed)

    def break_journal(self) -> None:
        """Nothing can be written into it; all else in the state's folder can."""
        (self.folder / "state" / "journal.jsonl").mkdir()

    def later(self, seconds: float) -> None:
        self.now = self.now.after(seconds)

    def location(
        self,
        name: str,
        data: bytes | None,
        *,
        user: str = "al",
        main: bool = True,
        origin: Origin = Origin.CONFIGURED,
        beside: str = "",
    ) -> ServedFile:
        path = self.folder / name
        if data is not None:
            path.write_bytes(data)
            path.chmod(0o600)
        owner = Owner(os.geteuid(), os.getegid(), str(self.folder))
        files = (str(self.folder / beside),) if beside else ()
        return ServedFile(KeyFileLocation(user, str(path), owner, main, beside=files), origin)

    def serve(
        self,
        *found: ServedFile,
        may_enter: bool = True,
        all_held: bool = False,
        dry_run: bool = False,
    ) -> UserResult:
        """The files of one user alone."""
        (result,) = self.serve_all(
            *found, may_enter=may_enter, all_held=all_held, dry_run=dry_run
        ).values()
        return result

    def serve_all(
        self,
        *found: ServedFile,
        may_enter: bool = True,
        all_held: bool = False,
        dry_run: bool = False,
    ) -> dict[str, UserResult]:
        """The files of all users, by user."""
        terms = Terms(
            self.desired,
            self.guard,
            opens_session,
            self.records,
            may_enter,
            all_held,
            dry_run,
            self.sshd,
        )
        return {result.user: result for result in serve_all(found, terms)}

    def remember(self, results: dict[str, UserResult]) -> None:
        """The holds, for the next cycle."""
        holds = {user: one.judgement.hold for user, one in results.items()}
        self.ledger = replace(self.ledger, holds={user: h for user, h in holds.items() if h})

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
    first = world.location("first", FOREIGN)
    second = world.location("second", REVOKED + OTHER, main=False)
    result = world.serve(first, second)
    assert (world.read("first"), world.read("second")) == (FOREIGN + NEW, OTHER)
    assert results(result) == ["changed", "changed"]
    assert removed(result) == [[], ["1"]]
    again = world.serve(first, second)
    assert results(again) == ["in_sync", "in_sync"]


def test_a_restriction_in_one_file_holds_in_the_others(world: World) -> None:
    """R4, incident 11: whichever target names the file; no plain key beside `command=`."""
    first = world.location("first", FOREIGN)
    second = world.location("second", RESTRICTED)
    result = world.serve(first, second)
    assert (world.read("first"), world.read("second")) == (FOREIGN, RESTRICTED)
    assert results(result) == ["in_sync", "in_sync"]


def test_a_managed_line_beside_a_restriction_in_another_file_goes(world: World) -> None:
    """R4, incident 11: in whichever of the user's files it stands."""
    first = world.location("first", FOREIGN + MANAGED)
    second = world.location("second", RESTRICTED, main=False)
    world.serve(first, second)
    assert (world.read("first"), world.read("second")) == (FOREIGN, RESTRICTED)


@pytest.mark.parametrize("reads", [True, False])
def test_a_restriction_in_a_file_that_is_no_target_holds_if_sshd_reads_it(
    world: World, *, reads: bool
) -> None:
    """R4: alice's own file restricts the key, and a target names another of her files. What sshd
    does not read restricts nothing, and keeps no listed key out (R1).
    """
    binary = world.folder / "sshd"
    files = f"{world.folder / 'named'} {world.folder / 'own' if reads else ''}"
    binary.write_text(f'#!/bin/sh\necho "authorizedkeysfile {files}"\n')
    binary.chmod(0o755)
    world.sshd = Sshd(str(world.folder))
    world.location("own", RESTRICTED)
    for data in (FOREIGN, FOREIGN + MANAGED):
        named = world.location("named", data, user=current_user(), beside="own")
        world.serve(named)
        assert (MANAGED in world.read("named") or NEW in world.read("named")) != reads
        assert world.read("own") == RESTRICTED


@pytest.mark.parametrize("restricted", ["first", "second"])
def test_a_restriction_in_one_of_two_named_files_holds_in_the_other(
    world: World, restricted: str
) -> None:
    """R4: two targets with a path are two files of one user."""
    other = "second" if restricted == "first" else "first"
    places = [world.location(restricted, RESTRICTED), world.location(other, FOREIGN + MANAGED)]
    for _ in range(2):
        world.serve(*places)
        assert world.read(restricted) == RESTRICTED
        assert world.read(other) == FOREIGN


def test_a_restriction_in_a_retired_file_locks_nobody_out(world: World) -> None:
    """G3: the key that it takes out of the user's only file is the last, so that is held."""
    retired = world.location("retired", RESTRICTED, origin=Origin.RETIRED)
    result = world.serve(world.location("named", MANAGED), retired)
    assert world.read("named") == MANAGED
    assert result.judgement.held is not None


def test_a_further_file_that_is_not_there_is_not_made(world: World) -> None:
    """R6: only the file that sshd reads first."""
    result = world.serve(world.location("first", None), world.location("second", None, main=False))
    assert world.read("first") == NEW
    assert not (world.folder / "second").exists()
    assert results(result) == ["changed"]


def test_a_retired_file_loses_deleted_keys_and_gets_none(world: World) -> None:
    """R5, incident 9: revocations still reach a target that was taken out."""
    retired = world.location("old", REVOKED + FOREIGN, origin=Origin.RETIRED)
    result = world.serve(retired)
    assert world.read("old") == FOREIGN
    assert (results(result), removed(result)) == (["changed"], [["1"]])
    assert result.reports[0].origin == "retired"
    assert not result.locked_out


# ---- G3 ----

LOCKED = RESTRICTED + REVOKED


def test_a_user_who_would_be_locked_out_is_held_and_nobody_else(world: World) -> None:
    """G3, incident 3: what stands in one user's file holds up no other user."""
    al = world.serve(world.location("al", LOCKED))
    root = world.serve(world.location("root", REVOKED + FOREIGN, user="root"))
    assert al.judgement.held
    assert al.judgement.held.user == "al"
    assert results(al) == ["held"]
    assert [one.fingerprint for one in al.reports[0].would_remove] == [KEYS[1].fingerprint]
    assert world.read("al") == LOCKED
    assert root.judgement.held is None
    assert world.read("root") == FOREIGN + NEW


def test_all_files_of_a_held_user_stay(world: World) -> None:
    """G3: the files are judged together, and held together."""
    result = world.serve(
        world.location("first", LOCKED), world.location("second", REVOKED, main=False)
    )
    assert results(result) == ["held", "held"]
    assert (world.read("first"), world.read("second")) == (LOCKED, REVOKED)


def test_what_is_held_for_all_changes_nothing(world: World) -> None:
    """G3: and says what would go."""
    result = world.serve(world.location("first", REVOKED + FOREIGN), all_held=True)
    assert world.read("first") == REVOKED + FOREIGN
    assert results(result) == ["held"]
    assert [one.fingerprint for one in result.reports[0].would_remove] == [KEYS[1].fingerprint]


def test_a_user_whom_no_key_lets_in_is_named(world: World) -> None:
    """Incident 4: also when nothing changed."""
    assert world.serve(world.location("first", RESTRICTED)).locked_out
    assert not world.serve(world.location("second", FOREIGN)).locked_out


# ---- failures ----


def test_one_files_failure_stops_no_other(world: World) -> None:
    """R11: and nobody is called locked out because a file could not be read."""
    (world.folder / "first").mkdir()
    result = world.serve(
        world.location("first", None), world.location("second", REVOKED + RESTRICTED, main=False)
    )
    assert results(result)[0] == "failed"
    assert not result.locked_out
    other = world.location("third", REVOKED + FOREIGN, main=False)
    result = world.serve(world.location("first", None), other)
    assert results(result) == ["failed", "changed"]
    assert world.read("third") == FOREIGN


def test_without_bookkeeping_deleted_keys_go_and_nothing_enters(tmp_path: Path) -> None:
    """G11, incident 2: revocation outranks the state that cannot be written."""
    tmp_path.chmod(0o700)
    world = World(tmp_path, state_works=False)
    result = world.serve(world.location("first", REVOKED + FOREIGN))
    assert world.read("first") == FOREIGN
    assert removed(result) == [["1"]]
    assert world.records.problem is not None
    plain = world.serve(world.location("second", LISTED + FOREIGN))
    assert world.read("second") == LISTED + FOREIGN
    assert results(plain) == ["failed"]  # R3: it is not adopted yet


def test_an_edited_only_key_is_replaced_where_the_journal_alone_fails(world: World) -> None:
    """G11, G3: the new key is recorded and the first bytes are saved, so it enters; the deleted one
    goes, and only its line in the journal is lost. That is told.
    """
    world.break_journal()
    result = world.serve(world.location("first", REVOKED))
    assert world.read("first") == NEW
    assert removed(result) == [["1"]]
    assert results(result) == ["changed"]
    assert world.records.problem is not None
    assert [one.data for one in world.state.originals()] == [REVOKED]


@pytest.mark.parametrize(
    "data", [REVOKED + FOREIGN, RESTRICTED + OTHER], ids=["with a deleted key", "without"]
)
def test_only_deleted_keys_go_where_the_journal_fails(world: World, data: bytes) -> None:
    """G5, G11: what strict mode would take away is somebody's line, and stays; nothing enters."""
    world.break_journal()
    world.desired = replace(WANTED, strict=True)
    result = world.serve(world.location("first", data))
    assert world.read("first") == data.removeprefix(REVOKED)
    assert removed(result) == [["1"] if REVOKED in data else []]
    assert results(result) == ["failed"]


@pytest.mark.parametrize("confirmed", [False, True])
def test_the_operators_word_removes_the_last_key_where_nothing_can_be_saved(
    tmp_path: Path, *, confirmed: bool
) -> None:
    """G3, G11: a deleted only key stays while the one that replaces it cannot enter, unless the
    operator confirms that it goes.
    """
    tmp_path.chmod(0o700)
    world = World(tmp_path, state_works=False, confirmed=confirmed)
    result = world.serve(world.location("first", REVOKED))
    assert world.read("first") == (b"" if confirmed else REVOKED)
    assert results(result) == ["failed"]  # the listed key waits
    assert result.locked_out == confirmed
    problem = result.reports[0].problem
    assert confirmed or (problem and "keysync sync --confirm-removals" in problem.hint)


def test_what_could_not_be_recorded_does_not_enter(world: World) -> None:
    """G11: a key is recorded before it is written into a file; deleted ones go all the same."""
    result = world.serve(world.location("first", REVOKED + FOREIGN), may_enter=False)
    assert world.read("first") == FOREIGN
    assert removed(result) == [["1"]]


def test_a_dry_run_says_what_would_be_done(world: World) -> None:
    """Commands: and writes nothing."""
    result = world.serve(world.location("first", REVOKED + FOREIGN), dry_run=True)
    assert world.read("first") == REVOKED + FOREIGN
    assert (results(result), removed(result)) == (["changed"], [["1"]])
    assert [one.fingerprint for one in result.reports[0].entries["added"]] == [KEYS[0].fingerprint]
    assert list((world.folder / "state").iterdir()) == []


# ---- one full disk for the state and the key file ----


def on_one_disk(folder: Path, work: Callable[[World, Path], None]) -> None:
    """Runs `work` with a file that was served before, and a state that has its reserve."""

    def prepared() -> None:
        with small_disk(folder, "size=1m"):
            world = World(folder)
            world.serve(world.location("first", REVOKED + LISTED))
            world.state.keep_reserve()
            work(world, folder / "state" / "reserve")

    folder.chmod(0o700)
    in_own_mounts(prepared)


def fill_up(folder: Path) -> None:
    with (folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@needs_root
@pytest.mark.parametrize("gone", [REVOKED, OTHER.rstrip() + b" " + TAG + b"\n"])
def test_a_deleted_key_goes_from_a_full_disk(tmp_path: Path, gone: bytes) -> None:
    """G11: the reserve makes room for the new file, which stands beside the old one for a moment.

    A line that keysync wrote and the account does not list goes like one that was revoked.
    """

    def work(world: World, reserve: Path) -> None:
        first = world.location("first", gone + FOREIGN)
        fill_up(world.folder)
        assert results(world.serve(first)) == ["changed"]
        assert world.read("first") == FOREIGN + NEW
        assert not reserve.exists()

    on_one_disk(tmp_path, work)


def _fails_for_want_of_room(world: World, data: bytes) -> None:
    first = world.location("first", data)
    fill_up(world.folder)
    result = world.serve(first)
    assert result.reports[0].problem
    assert result.reports[0].problem.kind == "disk_full"
    assert world.read("first") == data


@needs_root
@pytest.mark.parametrize("data", [FOREIGN, FOREIGN + MANAGED + LISTED])
def test_only_a_revocation_takes_the_reserve(tmp_path: Path, data: bytes) -> None:
    """G11: neither a key that is to be added nor a duplicate that is to go."""

    def work(world: World, reserve: Path) -> None:
        _fails_for_want_of_room(world, data)
        assert reserve.exists()

    on_one_disk(tmp_path, work)


@needs_root
def test_a_file_that_is_larger_than_the_reserve(tmp_path: Path) -> None:
    """G7: the old file stays, whole, and the failure has its name."""

    def work(world: World, reserve: Path) -> None:
        data = REVOKED + b"#" * (RESERVE_BYTES + 1) + b"\n"
        _fails_for_want_of_room(world, data)
        assert not reserve.exists()

    on_one_disk(tmp_path, work)


# ---- the order of users ----


def order(found: Sequence[ServedFile]) -> list[tuple[str, int]]:
    return [(user, len(places)) for user, places in by_user(found)]


def test_a_user_with_large_files_keeps_nobody_waiting(world: World) -> None:
    """G12: the users with little to read come first; a user's files stay together."""
    found = [
        world.location("a", b"#" * 5000, user="al"),
        world.location("b", b"#" * 100, user="bo"),
        world.location("c", None, user="cy"),
        world.location("d", b"#" * 100, user="bo", main=False),
        world.location("e", b"#" * 100, user="di", beside="a"),
    ]
    assert order(found) == [("cy", 1), ("bo", 2), ("al", 1), ("di", 1)]


# ---- files that several users read ----


@dataclass
class Shared:
    """`AuthorizedKeysFile shared %h/own` (or the other way round) for the users al and bo."""

    world: World
    own_first: bool = False
    retired: tuple[str, ...] = ()

    def give(self, shared: bytes | None, **own: bytes | None) -> None:
        for name, data in {"shared": shared, **own}.items():
            self.world.location(name, data)

    def serve(self, *, all_held: bool = False, dry_run: bool = False) -> dict[str, UserResult]:
        return self.world.serve_all(*self.found, all_held=all_held, dry_run=dry_run)

    @property
    def found(self) -> list[ServedFile]:
        return [
            self.world.location(
                name,
                None,
                user=user,
                main=(name == "shared") != self.own_first,
                origin=Origin.RETIRED if user in self.retired else Origin.CONFIGURED,
            )
            for user in ("al", "bo")
            for name in (("shared", user) if not self.own_first else (user, "shared"))
        ]

    def look(self) -> dict[str, tuple[int, int]]:
        """What changes with every write."""
        files = (self.world.folder / name for name in ("shared", "al", "bo"))
        return {
            file.name: (file.stat().st_ino, file.stat().st_mtime_ns)
            for file in files
            if file.exists()
        }


@pytest.fixture
def shared(world: World) -> Shared:
    return Shared(world)


def in_file(results: dict[str, UserResult], world: World, name: str) -> list[TargetReport]:
    """The reports of one file, by user."""
    path = str(world.folder / name)
    reports = (report for user in sorted(results) for report in results[user].reports)
    return [report for report in reports if report.path == path]


RESTRICT = b"restrict " + LISTED


def test_a_restriction_in_ones_own_file_takes_nothing_from_the_others(shared: Shared) -> None:
    """R4, R7: what al writes into his own file is his own affair, and a second sync writes nothing;
    his report says that sshd does not use his line.
    """
    shared.give(FOREIGN + MANAGED, al=RESTRICT)
    before = shared.look()
    for _ in range(2):
        results = shared.serve()
        assert [one.result for one in in_file(results, shared.world, "shared")] == ["in_sync"] * 2
        (own,) = in_file(results, shared.world, "al")
        assert [entry.reason for entry in own.entries["restricted"]] == ["behind_shared"]
        assert shared.look() == before


def test_a_restriction_in_ones_own_first_file_takes_nothing_from_the_others(
    shared: Shared,
) -> None:
    """R4: also where sshd reads al's own file first; there it is the line that sshd uses."""
    shared.own_first = True
    shared.give(FOREIGN + MANAGED, al=RESTRICT, bo=MANAGED)
    before = shared.look()
    results = shared.serve()
    (own,) = in_file(results, shared.world, "al")
    assert [entry.reason for entry in own.entries["restricted"]] == [""]
    assert shared.look() == before


def test_a_restriction_in_the_shared_file_holds_in_the_own_ones(shared: Shared) -> None:
    """R4, incident 11: nobody gets a managed line beside the one that root restricted."""
    shared.give(FOREIGN + RESTRICT, al=FOREIGN + MANAGED)
    shared.serve()
    assert shared.world.read("shared") == FOREIGN + RESTRICT
    assert shared.world.read("al") == FOREIGN


def test_a_restriction_in_a_file_of_the_same_readers_counts(world: World) -> None:
    """R4: two files of root's that sshd reads for both users are as one; not so a file that only
    one of several readers reads.
    """
    world.location("first", FOREIGN + MANAGED)
    world.location("second", RESTRICT)
    world.location("third", FOREIGN + MANAGED)
    found = [
        world.location(name, None, user=user, main=name == "first")
        for user in ("al", "bo", "cy")
        for name in ("first", "second", "third")
        if not (user == "cy" and name == "second")
    ]
    world.serve_all(*(one for one in found if one.location.user != "cy"))
    assert world.read("first") == FOREIGN
    world.location("first", FOREIGN + MANAGED)
    world.serve_all(*found)
    assert world.read("first") == FOREIGN + MANAGED


@pytest.mark.parametrize("common", [True, False])
def test_a_file_that_sshd_reads_for_everybody_is_shared_by_a_single_target(
    world: World, *, common: bool
) -> None:
    """R4: al alone is a target, and still decides nothing about what lets others in."""
    found = [
        world.location("shared", FOREIGN + MANAGED),
        world.location("al", RESTRICT, main=False),
    ]
    location = replace(found[0].location, common=common)
    world.serve(replace(found[0], location=location), found[1])
    assert world.read("shared") == FOREIGN + (MANAGED if common else b"")


def test_a_shared_file_is_written_once_for_all(shared: Shared) -> None:
    """R1, R5, R10: each reader's report says the same, and one of them speaks in the events."""
    shared.give(REVOKED + FOREIGN)
    results = shared.serve()
    assert shared.world.read("shared") == FOREIGN + NEW
    first, second = in_file(results, shared.world, "shared")
    assert (first.user, second.user) == ("al", "bo")
    assert first == replace(second, user="al", repeats=False)
    assert (first.repeats, second.repeats) == (False, True)
    assert removed(results["bo"]) == [["1"]]
    again = shared.serve()
    assert [one.result for one in in_file(again, shared.world, "shared")] == ["in_sync"] * 2


def test_a_shared_file_that_is_not_there_is_made_when_it_is_read_first(shared: Shared) -> None:
    """R6: as with any other file."""
    shared.serve()
    assert shared.world.read("shared") == NEW
    shared.own_first = True
    (shared.world.folder / "shared").unlink()
    results = shared.serve()
    assert not (shared.world.folder / "shared").exists()
    assert in_file(results, shared.world, "shared") == []


def test_a_file_that_is_read_first_for_one_reader_gets_the_keys(world: World) -> None:
    """R1: bo has no other file, and al has one that comes before it."""
    found = [
        world.location("al", None, user="al"),
        world.location("shared", REVOKED, user="al", main=False),
        world.location("shared", None, user="bo"),
    ]
    world.serve_all(*found)
    assert world.read("shared") == NEW


def test_two_ways_to_one_file_are_one_file(world: World) -> None:
    """R4: a link of root's leads to it, too."""
    (world.folder / "keys").mkdir(mode=0o700)
    (world.folder / "link").symlink_to("keys")
    found = [
        world.location("keys/shared", FOREIGN + MANAGED, user="al"),
        world.location("own", RESTRICT, user="al", main=False),
        world.location("link/shared", None, user="bo"),
    ]
    results = world.serve_all(*found)
    assert world.read("keys/shared") == FOREIGN + MANAGED
    assert in_file(results, world, "link/shared")[0].repeats


def test_a_new_file_in_a_home_is_of_the_user_whose_home_it_is(world: World) -> None:
    """G8, G9: whoever else it is configured for."""
    if os.geteuid() != 0:
        pytest.skip(reason="needs root: it gives folders to users")
    world.folder.chmod(0o755)
    home = world.folder / "home"
    home.mkdir(mode=0o755)
    os.chown(home, 12345, 12345)
    location, found = world.location("home/keys/file", None).location, []
    for user, uid in (("bo", 23456), ("al", 12345)):
        owner = Owner(uid, uid, str(home) if user == "al" else f"/home/{user}")
        found.append(ServedFile(replace(location, user=user, owner=owner), Origin.CONFIGURED))
    world.serve_all(*found)
    assert (home / "keys" / "file").stat().st_uid == 12345


def test_a_target_outranks_the_retired_one_of_another(shared: Shared) -> None:
    """R1, R5: al was taken out of the configuration, and bo still gets his keys."""
    shared.retired = ("al",)
    shared.give(REVOKED + FOREIGN)
    results = shared.serve()
    assert shared.world.read("shared") == FOREIGN + NEW
    reports = in_file(results, shared.world, "shared")
    assert [one.origin for one in reports] == ["retired", "configured"]
    assert [one.repeats for one in reports] == [True, False]


def test_a_file_shared_by_retired_targets_alone_gets_no_keys(shared: Shared) -> None:
    """R5: and loses those that were deleted."""
    shared.retired = ("al", "bo")
    shared.give(REVOKED + FOREIGN)
    shared.serve()
    assert shared.world.read("shared") == FOREIGN


def test_what_only_one_user_may_read_is_not_shared(world: World) -> None:
    """G8: bo is named as a reader of al's file, and cannot be; what stands in it is al's own."""
    if os.geteuid() != 0:
        pytest.skip(reason="needs root: it gives files to users")
    world.folder.chmod(0o755)
    for parent in world.folder.parents[:2]:
        parent.chmod(0o755)
    world.location("theirs", FOREIGN + RESTRICT)
    os.chown(world.folder / "theirs", 12345, 12345)
    world.location("shared", FOREIGN + MANAGED)
    (world.folder / "shared").chmod(0o644)
    found = []
    for user, uid in (("al", 12345), ("bo", 23456)):
        owner = Owner(uid, uid, f"/home/{user}")
        for name in ("shared", "theirs"):
            location = world.location(name, None, user=user, main=name == "shared").location
            found.append(ServedFile(replace(location, owner=owner), Origin.CONFIGURED))
    results = world.serve_all(*found)
    assert [one.result for one in in_file(results, world, "theirs")] == ["in_sync", "failed"]
    assert [one.result for one in in_file(results, world, "shared")] == ["in_sync"] * 2
    assert world.read("shared") == FOREIGN + MANAGED


# ---- G3 with files that several users read ----


@pytest.mark.parametrize("own_first", [False, True])
def test_a_shared_file_is_held_while_one_reader_would_be_locked_out(
    shared: Shared, *, own_first: bool
) -> None:
    """G3: al has another way in, bo has none. What is al's own is served all the same."""
    shared.own_first = own_first
    shared.give(LOCKED, al=REVOKED + FOREIGN, bo=REVOKED)
    results = shared.serve()
    assert shared.world.read("shared") == LOCKED
    assert shared.world.read("al") == FOREIGN
    assert shared.world.read("bo") == REVOKED
    assert results["al"].judgement.held is None
    assert results["bo"].judgement.held
    held = in_file(results, shared.world, "shared")
    assert [one.result for one in held] == ["held", "held"]
    assert [one.fingerprint for one in held[0].would_remove] == [KEYS[1].fingerprint]
    assert not any(one.locked_out for one in results.values())


def test_a_shared_file_is_not_held_while_every_reader_has_another_way_in(shared: Shared) -> None:
    """G3: a user's way in may stand in any of that user's files."""
    shared.give(LOCKED, al=FOREIGN, bo=FOREIGN)
    results = shared.serve()
    assert shared.world.read("shared") == RESTRICTED
    assert not any(one.judgement.held or one.locked_out for one in results.values())


@pytest.mark.parametrize("own", [RESTRICTED, None], ids=["restricted", "unreadable"])
def test_nobody_holds_a_shared_file_by_what_stands_in_his_own(
    shared: Shared, own: bytes | None
) -> None:
    """G3, incident 3: al lets no listed key in, or makes his file unreadable. His own is his."""
    shared.own_first = True
    shared.give(REVOKED, al=own, bo=NEW)
    if own is None:
        (shared.world.folder / "al").mkdir()
    results = shared.serve()
    assert shared.world.read("shared") == b""
    assert results["al"].judgement.held
    assert results["bo"].judgement.held is None


@pytest.mark.parametrize("state_works", [True, False])
def test_the_hold_of_a_shared_file_ends(tmp_path: Path, *, state_works: bool) -> None:
    """G3: it counts as any other, and who is locked out then is named; also where the state cannot
    be written (G11).
    """
    tmp_path.chmod(0o700)
    shared = Shared(World(tmp_path, state_works=state_works))
    shared.give(LOCKED, al=FOREIGN)
    results: dict[str, UserResult] = {}
    for seconds in (0, 200, 200):
        assert shared.world.read("shared") == LOCKED
        shared.world.later(seconds)
        results = shared.serve()
        shared.world.remember(results)
    assert shared.world.read("shared") == RESTRICTED
    assert results["bo"].locked_out
    assert not results["al"].locked_out


def test_what_was_held_in_the_shared_files_is_remembered(world: World) -> None:
    """G3: also when the user's own file has another way in meanwhile, so that the hold ends."""
    judgement = world.serve(world.location("al", LOCKED)).judgement
    terms = Terms(WANTED, world.guard, opens_session, world.records)
    result = UserSync("al", [world.location("al", FOREIGN)], terms).serve(judgement)
    assert judgement.hold
    assert result.judgement == judgement
    assert results(result) == ["changed"]


def test_what_is_held_for_all_holds_the_shared_files_too(shared: Shared) -> None:
    """G3: nothing changes."""
    shared.give(REVOKED + FOREIGN)
    results = shared.serve(all_held=True)
    assert shared.world.read("shared") == REVOKED + FOREIGN
    assert [one.result for one in in_file(results, shared.world, "shared")] == ["held", "held"]


def test_a_dry_run_leaves_the_shared_files_alone(shared: Shared) -> None:
    """Section 7: and says what would be done."""
    shared.give(REVOKED + FOREIGN)
    results = shared.serve(dry_run=True)
    assert shared.world.read("shared") == REVOKED + FOREIGN
    assert removed(results["bo"]) == [["1"]]


@pytest.mark.parametrize("own_first", [False, True])
@pytest.mark.parametrize("own", [FOREIGN, b""], ids=["way in", "no way in"])
def test_without_bookkeeping_deleted_keys_leave_the_shared_file(
    tmp_path: Path, own: bytes, *, own_first: bool
) -> None:
    """G11, G3: unless that would lock a reader out, for whom nothing can enter now."""
    tmp_path.chmod(0o700)
    shared = Shared(World(tmp_path, state_works=False), own_first)
    shared.give(REVOKED, al=FOREIGN, bo=own)
    results = shared.serve()
    assert shared.world.read("shared") == (b"" if own else REVOKED)
    failed = not own or not own_first  # a listed key waits for the first file
    expected = ["failed" if failed else "changed"] * 2
    assert [one.result for one in in_file(results, shared.world, "shared")] == expected
    assert shared.world.records.problem is not None


@pytest.mark.parametrize("own_first", [False, True])
def test_the_operators_word_removes_the_last_key_from_the_shared_file(
    tmp_path: Path, *, own_first: bool
) -> None:
    """G3, G11: also where nothing can be saved, so that nothing enters."""
    tmp_path.chmod(0o700)
    shared = Shared(World(tmp_path, state_works=False, confirmed=True), own_first)
    shared.give(REVOKED, al=FOREIGN, bo=b"")
    results = shared.serve()
    assert shared.world.read("shared") == b""
    assert results["bo"].locked_out
    assert not results["al"].locked_out
