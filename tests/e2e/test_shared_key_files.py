"""Key files of root's outside the homes, with a real sshd and real logins of two users (G9, R4)."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.console import Console
from sandbox.instance import Instance, KeyPair
from sandbox.users import temporary_user
from tests.e2e.support import MachinesSshd, World, make_world
from tests.support.own_mounts import in_own_mounts

_ROOT = "needs root: it makes two users, and key files of root's for them"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason=_ROOT)


@pytest.fixture(scope="module")
def users() -> Iterator[tuple[str, str]]:
    with temporary_user() as one, temporary_user() as other:
        yield one, other


@pytest.fixture
def keys() -> Iterator[Path]:
    """As /etc/ssh/keys: on a path that StrictModes accepts, outside of every home."""
    with tempfile.TemporaryDirectory(prefix="keysync-test-", dir="/etc") as made:
        folder = Path(made) / "keys"
        folder.parent.chmod(0o755)
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def console() -> Iterator[Console]:
    with Console() as running:
        yield running


@contextlib.contextmanager
def instances(users: tuple[str, str], paths: tuple[Path, Path]) -> Iterator[list[Instance]]:
    """For each user an sshd that reads this file."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Instance(user, str(path)))
            for user, path in zip(users, paths, strict=True)
        ]


def serving(
    instance: Instance, console: Console, folder: Path, *targets: tuple[str, Path]
) -> World:
    entries = ", ".join(f"{{user: {user}, path: {path}}}" for user, path in targets)
    return make_world(instance, console, folder, targets=f"[{entries}]")


def look(path: Path) -> tuple[int, int, int]:
    """User id, group id and mode."""
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def all_get_in(key: KeyPair, instances: list[Instance]) -> bool:
    return all(instance.can_log_in(key.private_path) for instance in instances)


@pytest.mark.parametrize("target", ["root", "one of them"])
def test_one_file_for_all_users_stays_open_to_all(
    users: tuple[str, str], keys: Path, console: Console, tmp_path: Path, target: str
) -> None:
    """G9, incident 6: whoever the target is, the file stays root's, and everybody gets in by the
    keys of before and of now; a deleted key (R2) is out for everybody.
    """
    path = keys / "all"
    user = users[0] if target == "one of them" else target
    with instances(users, (path, path)) as running:
        before, listed, deleted = (running[0].keygen(name) for name in ("before", "new", "deleted"))
        path.write_text(f"{before.public_line}\n")
        path.chmod(0o644)
        world = serving(running[0], console, tmp_path, (user, path))
        console.add_key(listed.public_line)
        key_id = console.add_key(deleted.public_line)
        world.sync()
        assert look(path) == (0, 0, 0o644)
        assert all(all_get_in(key, running) for key in (before, listed, deleted))
        console.delete_key(key_id)
        world.sync()
        assert look(path) == (0, 0, 0o644)
        assert all(all_get_in(key, running) for key in (before, listed))
        assert not any(one.can_log_in(deleted.private_path) for one in running)


@pytest.mark.parametrize("there", ["files", "folder", "nothing"])
def test_a_file_for_each_user_in_roots_folder(
    users: tuple[str, str], keys: Path, console: Console, tmp_path: Path, there: str
) -> None:
    """G9, incident 6: AuthorizedKeysFile /etc/ssh/keys/%u: nobody is given a file or the
    folder, and everybody gets in, whatever was there before.
    """
    paths = keys / users[0], keys / users[1]
    if there == "nothing":
        keys.rmdir()
    with instances(users, paths) as running:
        listed = running[0].keygen("listed")
        for path in paths if there == "files" else ():
            path.write_text("# root's\n")
            path.chmod(0o644)
        console.add_key(listed.public_line)
        serving(running[0], console, tmp_path, *zip(users, paths, strict=True)).sync()
        assert all_get_in(listed, running)
    assert [look(path) for path in paths] == [(0, 0, 0o644)] * 2
    assert look(keys) == (0, 0, 0o755)


def test_a_file_of_the_users_in_roots_folder_stays_theirs(
    users: tuple[str, str], keys: Path, console: Console, tmp_path: Path
) -> None:
    """G9: and it is closed to others, since it is theirs alone."""
    paths = keys / users[0], keys / users[1]
    with instances(users, paths) as running:
        listed = running[0].keygen("listed")
        for instance in running:
            instance.authorize()
        console.add_key(listed.public_line)
        serving(running[0], console, tmp_path, *zip(users, paths, strict=True)).sync()
        assert all_get_in(listed, running)
    for user, path in zip(users, paths, strict=True):
        account = pwd.getpwnam(user)
        assert look(path) == (account.pw_uid, account.pw_gid, 0o600)


# ---- one file for all, and one of each user's own ----


@dataclass(frozen=True)
class Both:
    """`AuthorizedKeysFile SHARED %h/own` of two users, each with an sshd that reads so."""

    shared: Path
    instances: list[Instance]
    world: World

    def own(self, at: int, *lines: str) -> Path:
        """What the user writes into the own file."""
        user = pwd.getpwnam(self.instances[at].user)
        path = Path(user.pw_dir, "own")
        path.write_text("".join(f"{line}\n" for line in lines))
        path.chmod(0o600)
        shutil.chown(path, user.pw_uid, user.pw_gid)
        return path

    def let_in(self, key: KeyPair) -> list[bool]:
        return [one.can_log_in(key.private_path) for one in self.instances]

    def keys(self, *names: str) -> list[KeyPair]:
        return [self.instances[0].keygen(name) for name in names]

    def stamp(self) -> tuple[int, int]:
        status = self.shared.stat()
        return status.st_ino, status.st_mtime_ns


def with_both(
    users: tuple[str, str],
    keys: Path,
    console: Console,
    folder: Path,
    work: Callable[[Both], None],
    *,
    pattern: str = "{shared} %h/own",
) -> None:
    shared = keys / "all"
    reads = pattern.format(shared=shared)

    def enter() -> None:
        MachinesSshd(folder).reads(reads)
        more = ("Match all", f"AuthorizedKeysFile {reads}")
        with contextlib.ExitStack() as stack:
            running = [
                stack.enter_context(Instance(user, str(shared), sshd_options=more))
                for user in users
            ]
            targets = ", ".join(f"{{user: {user}}}" for user in users)
            work(Both(shared, running, make_world(running[0], console, folder, f"[{targets}]")))

    try:
        in_own_mounts(enter)
    finally:
        for user in users:
            Path(pwd.getpwnam(user).pw_dir, "own").unlink(missing_ok=True)


@pytest.mark.parametrize("pattern", ["{shared} %h/own", "%h/own {shared}"])
def test_a_users_own_restriction_takes_no_key_from_the_others(
    users: tuple[str, str], keys: Path, console: Console, tmp_path: Path, pattern: str
) -> None:
    """R4, R7: with `restrict KEY` in one user's own file the other still gets in by the shared one,
    which a second sync does not write again; a key that is deleted is out for both (R2).
    """

    def work(both: Both) -> None:
        key, stays = both.keys("key", "stays")
        both.shared.write_text(f"{key.public_line}\n")  # as root put it there for all
        key_id = console.add_key(key.public_line)
        console.add_key(stays.public_line)
        own = both.own(0, f"restrict {key.public_line}")
        both.world.sync()
        first = both.stamp()
        report = both.world.sync()
        assert both.stamp() == first
        assert report["result"] == "in_sync"
        assert f"restrict {key.public_line}" in own.read_text()
        assert both.let_in(key) == [True, True]
        [line] = [
            entry
            for target in report["targets"]
            for entry in target["restricted"]
            if target["path"] == str(own)
        ]
        shared_first = pattern.startswith("{shared}")
        assert line["reason"] == ("behind_shared" if shared_first else None)
        console.delete_key(key_id)
        both.world.sync()
        assert key.public_line.split()[1] not in both.shared.read_text()
        assert both.let_in(key) == [True, False]  # his own line is his decision (R4)
        assert both.let_in(stays) == [True, True]

    with_both(users, keys, console, tmp_path, work, pattern=pattern)


def test_a_reader_who_would_be_locked_out_holds_the_shared_file_alone(
    users: tuple[str, str], keys: Path, console: Console, tmp_path: Path
) -> None:
    """G3: root lets the remaining key in no more; the second user has no other way in, the first
    has, and what is in that user's own file is served.
    """

    def work(both: Both) -> None:
        stays, goes, mine = both.keys("stays", "goes", "mine")
        console.add_key(stays.public_line)
        key_id = console.add_key(goes.public_line)
        both.world.sync()
        shut = f'expiry-time="19700101" {stays.public_line}\n{goes.public_line}\n'
        both.shared.write_text(shut)
        own = both.own(0, goes.public_line, mine.public_line)
        console.delete_key(key_id)
        report = both.world.sync(exits=3)
        assert report["error"]["message"] == f"No usable key would be left for {users[1]}."
        assert both.shared.read_text() == shut
        assert own.read_text() == f"{mine.public_line}\n"
        assert both.let_in(goes) == [True, True]
        both.world.sync("--confirm-removals", exits=4)
        assert both.let_in(goes) == [False, False]
        assert both.instances[0].can_log_in(mine.private_path)

    with_both(users, keys, console, tmp_path, work)


def test_nobody_holds_the_shared_file_by_what_stands_in_his_own(
    users: tuple[str, str], keys: Path, console: Console, tmp_path: Path
) -> None:
    """G3, incident 3: whoever refuses every listed key in his own file holds that one alone, and a
    deleted key is out of the shared file at once, for him too.
    """

    def work(both: Both) -> None:
        stays, goes = both.keys("stays", "goes")
        console.add_key(stays.public_line)
        key_id = console.add_key(goes.public_line)
        both.shared.write_text(f"{goes.public_line}\n")
        both.world.sync()
        shut = [f'expiry-time="19700101" {key.public_line}' for key in (stays, goes)]
        both.own(0, *shut)
        assert both.let_in(goes) == [True, True]
        console.delete_key(key_id)
        report = both.world.sync(exits=3)
        assert report["error"]["message"] == f"No usable key would be left for {users[0]}."
        assert both.let_in(goes) == [False, False]
        assert both.let_in(stays) == [False, True]

    with_both(users, keys, console, tmp_path, work, pattern="%h/own {shared}")
