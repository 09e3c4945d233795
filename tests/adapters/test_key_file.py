"""One key file on a real disk: what is written, what is refused, and what stays (R7, G8, G9)."""

from __future__ import annotations

import fcntl
import os
import resource
import stat
from pathlib import Path

import pytest

from agent.adapters.files.atomic import Owner
from agent.adapters.files.key_file import KeyFile, Snapshot
from agent.adapters.state import StateDirectory
from agent.core.answer import Answer
from agent.core.desired_keys import DesiredKeys
from agent.core.plan import Role
from agent.core.results import CHANGES, Origin
from agent.errors import TargetFailed
from agent.providers.vast import read_listing
from agent.service.bookkeeping import Records
from agent.service.locate import KeyFileLocation
from agent.service.target import TargetSync
from sandbox.users import current_user
from tests.adapters.support import (
    KEY,
    MANAGED,
    SECRET,
    User,
    adding,
    leftovers,
    needs_root,
    target,
    umask,
    update,
    without,
)
from tests.support.machine import Machine, listing

LINE = b"ssh-ed25519 AAAA a line"
ME = Owner(os.geteuid(), os.getegid())


def modes(path: Path) -> tuple[int, int]:
    """Of the file and its directory."""
    return stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)


# ---- what is written ----


def test_nothing_to_do_writes_nothing(tmp_path: Path) -> None:
    """R7: inode, mtime and the directory's mtime stay, and nobody is asked before a write."""
    path = tmp_path / "authorized_keys"
    update(path, ME, adding(LINE))
    before = path.stat(), path.parent.stat()
    asked: list[Snapshot] = []
    with KeyFile.opened(str(path), ME, for_writing=True) as file:
        file.update(adding(LINE), asked.append)
    after = path.stat(), path.parent.stat()
    assert asked == []
    assert [(s.st_ino, s.st_mtime_ns) for s in before] == [(s.st_ino, s.st_mtime_ns) for s in after]


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o077, 0o777])
def test_modes_are_set_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    """G9: file 0600, directory 0700."""
    path = tmp_path / "ssh" / "authorized_keys"
    with umask(mask):
        update(path, ME, adding(LINE))
        assert modes(path) == (0o600, 0o700)
        update(path, ME, adding(LINE + b" 2"))
    assert modes(path) == (0o600, 0o700)


@needs_root
def test_directory_and_file_belong_to_the_user(user: User) -> None:
    """G9: owner and group are the target user's, and no temporary name is left."""
    update(user.keys, user.owner, adding(LINE))
    for path in (user.keys, user.ssh):
        assert (path.stat().st_uid, path.stat().st_gid) == (user.uid, user.gid)
    assert modes(user.keys) == (0o600, 0o700)
    assert leftovers(user.home) == [".ssh"]
    assert leftovers(user.ssh) == []


@needs_root
@pytest.mark.parametrize("mode", [0o660, 0o602, 0o666, 0o200, 0o000])
def test_a_file_that_sshd_would_refuse_is_mended(user: User, mode: int) -> None:
    """G9, R1: StrictModes refuses what others can write; sshd reads it as the user."""
    user.write_keys(LINE + b"\n", mode)
    update(user.keys, user.owner, adding(LINE))
    assert modes(user.keys) == (0o600, 0o700)
    assert user.keys.read_bytes() == LINE + b"\n"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o644, 0o700])
def test_a_mode_that_sshd_accepts_is_left_alone(tmp_path: Path, mode: int) -> None:
    """R7: only what keeps somebody from logging in is a reason to write."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(LINE + b"\n")
    path.chmod(mode)
    before = path.stat()
    update(path, ME, adding(LINE))
    assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)


@needs_root
@pytest.mark.parametrize("mode", [0o775, 0o707, 0o1777, 0o600, 0o000])
def test_a_directory_that_sshd_would_refuse_is_mended(user: User, mode: int) -> None:
    """G9: ~/.ssh becomes 0700 when others could write in it or the user could not look in."""
    user.write_keys(LINE + b"\n")
    user.ssh.chmod(mode)
    update(user.keys, user.owner, adding(LINE))
    assert modes(user.keys)[1] == (0o1777 if mode == 0o1777 else 0o700)


def test_a_directory_for_several_users_stays_open_to_them(tmp_path: Path) -> None:
    """G9: /etc/ssh/keys/%u must stay readable, or mending it for one user locks out the others."""
    shared = tmp_path / "keys"
    shared.mkdir()
    shared.chmod(0o775)
    update(shared / "root", ME, adding(LINE))
    assert modes(shared / "root") == (0o600, 0o755)


@needs_root
def test_a_readable_file_of_roots_is_given_to_the_user(user: User) -> None:
    """G9: what an administrator put there with cp becomes the user's own, its lines kept."""
    user.make_ssh()
    user.keys.write_bytes(LINE + b"\n")
    user.keys.chmod(0o644)
    update(user.keys, user.owner, adding(LINE))
    assert user.keys.read_bytes() == LINE + b"\n"
    assert (user.keys.stat().st_uid, modes(user.keys)[0]) == (user.uid, 0o600)


@needs_root
def test_the_group_is_the_owners_also_in_a_setgid_directory(tmp_path: Path) -> None:
    """G9: with S_ISGID on the directory a new file would get the directory's group (inode(7))."""
    tmp_path.chmod(0o2700)
    os.chown(tmp_path, -1, 12345)
    update(tmp_path / "authorized_keys", ME, adding(LINE))
    assert (tmp_path / "authorized_keys").stat().st_gid == ME.gid


def test_labels_of_other_kinds_are_left_behind(tmp_path: Path) -> None:
    """G9: only security.selinux is carried over; there is no SELinux here to show that one."""
    path = tmp_path / "authorized_keys"
    path.touch(mode=0o600)
    try:
        os.setxattr(path, "user.note", b"mine")
    except OSError as error:
        pytest.skip(reason=f"this file system has no user attributes: {error}")
    update(path, ME, adding(LINE))
    assert path.read_bytes() == LINE + b"\n"
    assert os.listxattr(path) == []


def test_bytes_are_kept_and_no_line_is_glued(tmp_path: Path) -> None:
    """R6: CRLF, NUL, bytes that are not UTF-8 and a missing final newline survive an append."""
    path = tmp_path / "authorized_keys"
    odd = b"# crlf\r\n\xff\xfe\0 \xe2\x80\xa8 \r lone\n\n\nno newline"
    path.write_bytes(odd)
    update(path, ME, adding(LINE))
    assert path.read_bytes() == odd + b"\n" + LINE + b"\n"
    update(path, ME, without(LINE))
    assert path.read_bytes() == odd + b"\n"


def test_what_is_replaced_is_shown_before(tmp_path: Path) -> None:
    """G5: the caller sees the exact bytes, and whether there was a file, before they go."""
    path = tmp_path / "authorized_keys"
    seen: list[tuple[Snapshot, bool]] = []
    for line in (b"one", b"two"):
        with KeyFile.opened(str(path), ME, for_writing=True) as file:
            file.update(adding(line), lambda old: seen.append((old, path.exists())))
    assert seen == [
        (Snapshot(b"", exists=False), False),
        (Snapshot(b"one\n", exists=True), True),
    ]


def test_a_missing_directory_is_an_empty_file_and_is_not_made_for_reading(tmp_path: Path) -> None:
    """`status` and a dry run write nothing."""
    with KeyFile.opened(str(tmp_path / "ssh" / "authorized_keys"), ME, for_writing=False) as file:
        assert file.read() == Snapshot()
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    """G7: they never block, and only keysync's own names are taken for leftovers."""
    path = tmp_path / "authorized_keys"
    for name in (".authorized_keys.keysync-0123456789abcdef", ".authorized_keys.keysync-x"):
        (tmp_path / name).write_bytes(SECRET)
    others = [".authorized_keys.swp", ".authorized_keys2.keysync-0123456789abcdef", "known_hosts"]
    for name in others:
        (tmp_path / name).touch()
    update(path, ME, adding(LINE))
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "authorized_keys"])


def test_a_file_that_is_being_written_by_another_agent_is_not_taken_for_a_leftover(
    tmp_path: Path,
) -> None:
    """G7: while another agent holds the directory, its temporary file stays."""
    theirs = tmp_path / ".authorized_keys.keysync-0123456789abcdef"
    theirs.touch()
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with KeyFile.opened(str(tmp_path / "authorized_keys"), ME, for_writing=True):
            assert theirs.exists()
    finally:
        os.close(held)


def test_two_files_in_one_directory_do_not_wait_for_each_other(
    tmp_path: Path, machine: Machine, user: User
) -> None:
    """sshd's own default are two files in ~/.ssh; a sync that opens both has no reason to wait."""
    user.write_keys(b"")
    machine.configure(targets=target(user.name))
    done = machine.process("sync", "--json")
    assert done.code == 0, done.stderr
    assert done.events[-1]["duration_ms"] < 3000
    assert user.keys.read_bytes() == MANAGED


# ---- what is refused; what else may lie there is in tests/attacks/test_paths.py ----


def test_padding_puts_no_file_out_of_reach(tmp_path: Path) -> None:
    """R5, G12: millions of blank lines and comments hide no line, and stay as they are (R6)."""
    path = tmp_path / "authorized_keys"
    padding = b"\n" * 3_000_000 + b"# not a key, and as long as one\n" * 300_000
    path.write_bytes(padding + LINE + b"\n" + padding)
    update(path, ME, without(LINE))
    assert path.read_bytes() == padding + padding


@pytest.mark.parametrize(
    ("data", "size", "bound"),
    [
        (b"", (64 << 20) + 1, "64 MiB"),
        (b"words that may be a key\n" * 250_001, 24 * 250_001, "250,000 lines that may hold a key"),
    ],
)
def test_what_is_out_of_all_bounds_is_refused(
    tmp_path: Path, data: bytes, size: int, bound: str
) -> None:
    """R5, G8: each such line costs memory, and the user decides how many there are.

    The failure says what it means: nobody looks for deleted keys in this file.
    """
    path = tmp_path / "authorized_keys"
    path.write_bytes(data)
    os.truncate(path, size)
    before = path.stat()
    with pytest.raises(TargetFailed) as failure:
        update(path, ME, adding(LINE))
    assert (failure.value.kind, failure.value.message) == (
        "key_file_too_large",
        f"{path} has more than {bound}, so it is not touched: deleted keys in it may still log in.",
    )
    assert f"wc {path}" in failure.value.hint
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@needs_root
def test_a_lock_held_for_ever_does_not_stop_a_sync(user: User) -> None:
    """G8: the directory's lock is the user's to take, so it can only be waited for a while."""
    user.write_keys(b"")
    hold = "held = os.open(sys.argv[1], os.O_RDONLY); fcntl.flock(held, fcntl.LOCK_EX)\n"
    with user.python(hold + "print('held'); sys.stdin.read()", str(user.ssh)):
        update(user.keys, user.owner, adding(LINE))
    assert user.keys.read_bytes() == LINE + b"\n"


@needs_root
def test_a_lease_on_the_file_does_not_hang_a_sync(user: User) -> None:
    """G8: an open that conflicts with the user's lease would wait for 45 s (fcntl(2))."""
    user.write_keys(b"")
    lease = "held = os.open(sys.argv[1], os.O_RDWR); fcntl.fcntl(held, fcntl.F_SETLEASE, 1)\n"
    ignore = "signal.signal(signal.SIGIO, signal.SIG_IGN); "
    with (
        user.python(ignore + lease + "print('held'); sys.stdin.read()", str(user.keys)),
        pytest.raises(TargetFailed, match="Could not read"),
    ):
        update(user.keys, user.owner, adding(LINE))


@needs_root
def test_the_platforms_link_is_followed(tmp_path: Path, machine: Machine) -> None:
    """G8: /root/.ssh as a link of root's to a directory of root's, as the boot hook makes it."""
    moved = tmp_path / "home_ssh" / "root" / ".ssh"
    moved.mkdir(parents=True, mode=0o700)
    (tmp_path / "root").mkdir(mode=0o700)
    (tmp_path / "root" / ".ssh").symlink_to(moved)
    machine.configure(targets=target("root", tmp_path / "root" / ".ssh" / "authorized_keys"))
    done = machine.here("sync")
    assert done.code == 0, done.stderr
    assert (moved / "authorized_keys").read_bytes() == MANAGED
    assert (tmp_path / "root" / ".ssh").is_symlink()


def test_a_limit_of_file_sizes_keeps_the_old_file(tmp_path: Path) -> None:
    """G7: a write that the system takes in part only (RLIMIT_FSIZE) ends as a failure by name."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(LINE + b"\n")
    before = path.stat().st_ino
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(TargetFailed) as failure:
            update(path, ME, adding(b"x" * 2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failure.value.kind == "too_large"
    assert (path.stat().st_ino, path.read_bytes()) == (before, LINE + b"\n")
    assert os.listdir(tmp_path) == ["authorized_keys"]


def test_a_file_that_appears_before_the_first_write_is_the_original(tmp_path: Path) -> None:
    """G5: what the platform writes between our look and our write is what uninstall gives back."""
    path = tmp_path / "authorized_keys"
    state = StateDirectory(str(tmp_path / "state"))
    [listed] = read_listing(Answer(200, listing(KEY.decode())), 2048).keys
    location = KeyFileLocation(current_user(), str(path), ME)
    desired = DesiredKeys({listed.key.blob: listed}, {})
    target_sync = TargetSync(location, desired, Origin.CONFIGURED, Role.MAIN)
    with state.locked(1), KeyFile.opened(str(path), ME, for_writing=True) as file:
        target_sync.read(file)
        path.write_bytes(LINE + b"\n")
        target_sync.write(Records(state, "abcd", "2024-05-01T10:00:00Z"))
    assert path.read_bytes() == LINE + b"\n" + MANAGED
    assert [original.data for original in state.originals()] == [LINE + b"\n"]


def test_only_what_was_written_is_reported(tmp_path: Path) -> None:
    """R10, incident 24: a key that somebody pastes just before the exchange is adopted; the plan
    that came too late is not reported as well.
    """
    path = tmp_path / "authorized_keys"
    path.write_bytes(LINE + b"\n")

    class Pasting(Records):
        """Bookkeeping in whose moment somebody pastes the very key that is about to be added."""

        def keep(
            self,
            location: KeyFileLocation,
            replaced: Snapshot,
            removed: tuple[bytes, ...],
            *,
            only_revokes: bool,
        ) -> None:
            super().keep(location, replaced, removed, only_revokes=only_revokes)
            if KEY not in path.read_bytes():
                path.write_bytes(LINE + b"\n" + KEY + b"\n")

    [listed] = read_listing(Answer(200, listing(KEY.decode())), 2048).keys
    location = KeyFileLocation(current_user(), str(path), ME)
    desired = DesiredKeys({listed.key.blob: listed}, {})
    target_sync = TargetSync(location, desired, Origin.CONFIGURED, Role.MAIN)
    state = StateDirectory(str(tmp_path / "state"))
    with state.locked(1), KeyFile.opened(str(path), ME, for_writing=True) as file:
        target_sync.read(file)
        target_sync.write(Pasting(state, "abcd", "2024-05-01T10:00:00Z"))
    report = target_sync.report(dry_run=False)
    done = {name: [one.fingerprint for one in report.entries[name]] for name in CHANGES}
    assert done == {"added": [], "adopted": [listed.key.fingerprint], "removed": []}
    assert path.read_bytes() == LINE + b"\n" + MANAGED
