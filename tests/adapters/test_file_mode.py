"""Who owns a key file and which mode it has, where root's files and users' meet (G8, G9)."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from agent.adapters.files.atomic import Owner
from agent.adapters.files.file_mode import ModeChange, is_at_home
from agent.adapters.files.key_file import KeyFile, Transform
from agent.errors import TargetFailed
from tests.adapters.support import User, adding, needs_root, update

LINE = b"ssh-ed25519 AAAA a line"
MORE = b"ssh-ed25519 AAAA another"
ACL = "system.posix_acl_access"


_SWAP = """
import os, sys
path = sys.argv[1]
print("swapping", flush=True)
while True:
    os.symlink("nowhere", path + ".link")
    os.rename(path + ".link", path)
    open(path + ".file", "w").close()
    os.rename(path + ".file", path)
"""


def test_a_link_that_comes_and_goes_fails_no_cycle(tmp_path: Path) -> None:
    """R11, G8: a user who swaps the key file for a link and back cannot crash a sync of root's.

    Before, about one look in a thousand ended in an OSError that nobody expected.
    """
    path = tmp_path / "authorized_keys"
    path.touch()
    with subprocess.Popen([sys.executable, "-c", _SWAP, path], stdout=subprocess.PIPE) as swapping:
        try:
            assert swapping.stdout
            assert swapping.stdout.readline() == b"swapping\n"
            found = {is_at_home(str(path), Owner(1, 1, str(tmp_path))) for _ in range(20_000)}
        finally:
            swapping.kill()
    assert found == {True}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder of root's that everybody may look into, as /etc/ssh/keys."""
    folder = tmp_path / "keys"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def away(user: User) -> Owner:
    """The user, whose home is known."""
    return Owner(user.uid, user.gid, str(user.home))


def root(home: Path | str = "/root") -> Owner:
    return Owner(0, 0, str(home))


def look(path: Path) -> tuple[int, int, int]:
    """User id, group id and mode."""
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def changes(path: Path, owner: Owner, transform: Transform) -> list[ModeChange]:
    """An update, and what it says about modes."""
    with KeyFile.opened(str(path), owner, for_writing=True) as file:
        file.update(transform, lambda _: None)
        return file.mode_changes


# ---- root's files outside the home ----


@needs_root
@pytest.mark.parametrize("mode", [0o644, 0o444, 0o755, 0o640])
def test_a_file_of_roots_stays_roots(user: User, keys: Path, mode: int) -> None:
    """G9, incident 6: whoever is the target; owner, group and mode stay."""
    path = keys / "all"
    path.write_bytes(LINE + b"\n")
    os.chown(path, 0, user.gid)
    path.chmod(mode)
    for owner, line in ((away(user), MORE), (root(), b"third"), (user.owner, b"fourth")):
        assert changes(path, owner, adding(line)) == []
        assert look(path) == (0, user.gid, mode)
    assert path.read_bytes().split() == b" ".join([LINE, MORE, b"third", b"fourth"]).split()


@needs_root
def test_a_new_file_beside_roots_can_be_read_by_the_user(user: User, keys: Path) -> None:
    """G9: sshd opens /etc/ssh/keys/%u with the user's rights, and the folder is root's."""
    for name, owner in (("user", away(user)), ("root", root())):
        assert changes(keys / name, owner, adding(LINE)) == []
        assert look(keys / name) == (0, 0, 0o644)


@needs_root
def test_a_new_folder_for_all_users_is_not_the_first_ones(user: User, tmp_path: Path) -> None:
    """G9: /etc/ssh/keys, made for one user's file, is root's and open to sshd for the others."""
    update(tmp_path / "first" / "user", away(user), adding(LINE))
    update(tmp_path / "second" / "root", root(), adding(LINE))
    for folder in ("first", "second"):
        assert look(tmp_path / folder) == (0, 0, 0o755)
    assert look(tmp_path / "first" / "user") == (0, 0, 0o644)


@needs_root
@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o4755, 0o4777])
def test_what_others_may_write_is_closed_and_nothing_else(
    user: User, keys: Path, mode: int
) -> None:
    """G8, G9, R1: sshd refuses it for everybody (StrictModes); reading stays, set-ID bits go."""
    path = keys / "all"
    path.write_bytes(LINE + b"\n")
    path.chmod(mode)
    assert changes(path, away(user), adding(MORE)) == [
        ModeChange(str(path), mode, mode & 0o755, 0, 0)
    ]
    assert look(path) == (0, 0, mode & 0o755)


@needs_root
def test_a_file_of_the_users_in_roots_folder_is_the_users(user: User, keys: Path) -> None:
    """G9: 0600, as everywhere; owning it, the user decides about it anyway."""
    path = keys / "user"
    path.write_bytes(LINE + b"\n")
    path.chmod(0o644)
    user.give(path)
    assert changes(path, away(user), adding(MORE)) == [
        ModeChange(str(path), 0o644, 0o600, user.uid, user.uid)
    ]
    assert look(path) == (user.uid, user.gid, 0o600)


@needs_root
@pytest.mark.parametrize(("gid", "mode"), [(0, 0o600), (0, 0o640), (12345, 0o640)])
def test_a_file_of_roots_that_the_user_may_not_read_is_refused(
    user: User, keys: Path, gid: int, mode: int
) -> None:
    """G8: sshd could not read it for this user either; nothing of it may come to light."""
    path = keys / "secret"
    path.write_bytes(LINE + b"\n")
    os.chown(path, 0, gid)
    path.chmod(mode)
    with pytest.raises(TargetFailed, match="belongs to user id 0"):
        update(path, away(user), adding(MORE))
    assert (look(path), path.read_bytes()) == ((0, gid, mode), LINE + b"\n")


@needs_root
def test_the_users_lines_do_not_come_into_a_file_of_roots(user: User, tmp_path: Path) -> None:
    """G8: what the user puts under a temporary name beside root's file does not come into it."""
    crowd = tmp_path / "crowd"
    crowd.mkdir()
    crowd.chmod(0o1777)
    path = crowd / "all"
    path.write_bytes(LINE + b"\n")
    path.chmod(0o644)
    planted = crowd / ".all.keysync-0123456789abcdef"
    planted.write_bytes(LINE + b"\nplanted\n")
    user.give(planted)
    update(path, away(user), adding(MORE))
    assert path.read_bytes() == LINE + b"\n" + MORE + b"\n"
    assert look(path) == (0, 0, 0o644)


# ---- in the home ----


@needs_root
def test_roots_own_file_in_roots_home_is_closed(tmp_path: Path) -> None:
    """G9: 0600 in 0700, as ever; a change of what was there is told."""
    path = tmp_path / ".ssh" / "authorized_keys"
    assert changes(path, root(tmp_path), adding(LINE)) == []
    assert (look(path), look(path.parent)) == ((0, 0, 0o600), (0, 0, 0o700))
    path.chmod(0o644)
    path.parent.chmod(0o777)
    assert changes(path, root(tmp_path), adding(MORE)) == [
        ModeChange(str(path.parent), 0o777, 0o700, 0, 0),
        ModeChange(str(path), 0o644, 0o600, 0, 0),
    ]


@needs_root
def test_a_file_of_roots_in_the_users_folder_becomes_the_users(user: User) -> None:
    """G8, G9: the user can replace it anyway, and may have moved it here; it is told."""
    user.make_ssh(0o777)
    user.keys.write_bytes(LINE + b"\n")
    user.keys.chmod(0o4755)
    assert changes(user.keys, away(user), adding(MORE)) == [
        ModeChange(str(user.ssh), 0o777, 0o700, user.uid, user.uid),
        ModeChange(str(user.keys), 0o4755, 0o600, 0, user.uid),
    ]
    assert look(user.keys) == (user.uid, user.gid, 0o600)


@needs_root
def test_a_home_that_root_keeps_closed_stays_so(user: User, tmp_path: Path) -> None:
    """G9: as for sftp in a chroot: where root owns the way and the file, the user gets neither."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    path = home / ".ssh" / "authorized_keys"
    path.write_bytes(LINE + b"\n")
    path.chmod(0o644)
    for folder in (home, home / ".ssh"):
        folder.chmod(0o755)
    owner = Owner(user.uid, user.gid, str(home))
    assert changes(path, owner, adding(MORE)) == []
    assert (look(path), look(path.parent)) == ((0, 0, 0o644), (0, 0, 0o755))


def test_what_is_at_home(tmp_path: Path) -> None:
    """G9: by name, or by where links lead, as the platform makes /root/.ssh one."""
    (tmp_path / "real" / "home").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").symlink_to("real/home")
    (tmp_path / "real" / "home" / ".ssh").symlink_to(tmp_path / "elsewhere")
    at_home = Owner(1, 1, str(tmp_path / "home"))
    for inside in ("home/.ssh/authorized_keys", "real/home/keys", "home//x/../keys"):
        assert is_at_home(str(tmp_path / inside), at_home), inside
    for outside in ("elsewhere/authorized_keys", "home/../keys", "homework/keys", "home"):
        assert not is_at_home(f"{tmp_path}/{outside}", at_home), outside
    assert not is_at_home("/etc/ssh/keys/daemon", Owner(1, 1, "/"))
    assert is_at_home("/anywhere", Owner(1, 1))


# ---- what is told ----


def test_nothing_is_told_of_what_did_not_change(tmp_path: Path) -> None:
    """G9: neither of a new file, nor of one that keeps its mode, nor of one that is not written."""
    path = tmp_path / "ssh" / "authorized_keys"
    me = Owner(os.geteuid(), os.getegid())
    assert changes(path, me, adding(LINE)) == []
    assert changes(path, me, adding(MORE)) == []
    path.chmod(0o644)
    assert changes(path, me, adding(MORE)) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


# ---- access lists ----

_USER, _NAMED_USER, _GROUP, _NAMED_GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NOBODY = 0xFFFFFFFF
AUDITOR = 54321


def acl(*entries: tuple[int, int, int]) -> bytes:
    """As the kernel keeps it: linux/posix_acl_xattr.h."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def permissions(path: Path) -> dict[tuple[int, int], int]:
    """By kind and user or group id; empty when there is no access list."""
    if ACL not in os.listxattr(path):
        return {}
    entries = struct.iter_unpack("<HHI", os.getxattr(path, ACL)[4:])
    return {(kind, who): granted for kind, granted, who in entries}


def grant(path: Path, granted: int, mode: int) -> None:
    """The auditor, as user and as group, may do so much; the others are as in `mode`."""
    entries = (
        (_USER, mode >> 6 & 7, _NOBODY),
        (_NAMED_USER, granted, AUDITOR),
        (_GROUP, mode >> 3 & 7, _NOBODY),
        (_NAMED_GROUP, granted, AUDITOR),
        (_MASK, granted, _NOBODY),
        (_OTHER, mode & 7, _NOBODY),
    )
    try:
        os.setxattr(path, ACL, acl(*entries))
    except OSError as error:
        pytest.skip(reason=f"this file system has no access lists: {error}")


@pytest.mark.parametrize("granted", [4, 6, 7], ids=["read", "read and write", "everything"])
def test_who_may_read_by_an_access_list_still_may(tmp_path: Path, granted: int) -> None:
    """G9: the list stays; G8: nobody keeps permission to write, and the mode is as good as 0600."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(LINE + b"\n")
    grant(path, granted, 0o644)
    me = Owner(os.geteuid(), os.getegid())
    [change] = changes(path, me, adding(MORE))
    kept = granted & ~2
    assert permissions(path) == {
        (_USER, _NOBODY): 6,
        (_NAMED_USER, AUDITOR): kept,
        (_GROUP, _NOBODY): 0,
        (_NAMED_GROUP, AUDITOR): kept,
        (_MASK, _NOBODY): kept,
        (_OTHER, _NOBODY): 0,
    }
    assert change.after == stat.S_IMODE(path.stat().st_mode) == 0o600 | kept << 3
    before = path.stat().st_ino
    assert changes(path, me, adding(MORE)) == []
    assert path.stat().st_ino == before


@needs_root
def test_an_access_list_on_a_file_of_roots_stays(user: User, keys: Path) -> None:
    """G9: entry by entry, with owner and mode."""
    path = keys / "all"
    path.write_bytes(LINE + b"\n")
    path.chmod(0o644)
    grant(path, 4, 0o644)
    before = permissions(path), look(path)
    assert changes(path, away(user), adding(MORE)) == []
    assert (permissions(path), look(path)) == before
