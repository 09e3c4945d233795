"""Where a real sshd with StrictModes and keysync must agree on what is safe (G8, G9)."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from sandbox.instance import Instance
from sandbox.users import temporary_user
from tests.e2e.support import World, make_world

pytestmark = [
    pytest.mark.attack,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes a user, and serves it"),
]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A user like the platform's own: an ordinary one whose group is root's."""
    with temporary_user() as name:
        subprocess.run(["usermod", "-g", "0", name], check=True)
        try:
            shutil.chown(pwd.getpwnam(name).pw_dir, name, 0)
            with Instance(name, ".ssh/authorized_keys") as instance, Console() as console:
                yield make_world(instance, console, tmp_path)
        finally:
            subprocess.run(["usermod", "-g", name, name], check=True)


def _private_key(world: World, name: str = "laptop") -> Path:
    """A key that the console lists."""
    pair = world.instance.keygen(name)
    world.console.add_key(pair.public_line)
    return pair.private_path


@pytest.mark.parametrize(
    ("folder", "file"), [(0o775, 0o664), (0o2775, 0o660), (0o777, 0o666), (0o4770, 0o4664)]
)
def test_a_user_of_group_0_under_an_open_umask(world: World, folder: int, file: int) -> None:
    """G9, vast.md: where umask 002 has left folder and file open to the group, which others share,
    sshd refuses every key; a sync mends both, and no special bit stays.
    """
    keys = world.instance.authorized_keys
    keys.parent.mkdir()
    keys.write_bytes(b"# mine\n")
    for path, mode in ((keys, file), (keys.parent, folder)):
        shutil.chown(path, world.instance.user, 0)
        path.chmod(mode)
    private = _private_key(world)
    assert world.sync()["result"] == "changed"
    assert [path.stat().st_mode & 0o7777 for path in (keys.parent, keys)] == [0o700, 0o600]
    assert keys.stat().st_gid == 0
    assert keys.read_bytes().startswith(b"# mine\n")
    assert world.instance.can_log_in(private)


def test_a_new_folder_of_a_user_of_group_0(world: World) -> None:
    """G9: made by keysync, whatever the umask; sshd takes it."""
    private = _private_key(world)
    earlier = os.umask(0o002)
    try:
        world.sync()
    finally:
        os.umask(earlier)
    assert world.instance.can_log_in(private)


def test_the_platforms_links_work_and_the_users_do_not(world: World) -> None:
    """G8, R1: root's link to a folder that root moved is followed, for a login and for a sync; the
    same link, made by the user, is refused, and the key stays as it was.
    """
    keys = world.instance.authorized_keys
    user = world.instance.user
    home = keys.parent.parent
    moved = home.parent / f"{user}-moved"
    try:
        (moved / ".ssh").mkdir(parents=True, mode=0o700)
        moved.chmod(0o755)
        shutil.chown(moved / ".ssh", user, 0)
        keys.parent.symlink_to(moved / ".ssh")
        private = _private_key(world)
        assert world.sync()["result"] == "changed"
        assert keys.parent.is_symlink()
        assert world.instance.can_log_in(private)

        entry = pwd.getpwnam(user)
        os.chown(keys.parent, entry.pw_uid, 0, follow_symlinks=False)
        before = keys.read_bytes(), keys.stat()
        _private_key(world, "second")
        report = world.sync(exits=74)
        assert report["targets"][0]["error"]["kind"] == "symlink"
        assert (keys.read_bytes(), keys.stat().st_ino) == (before[0], before[1].st_ino)
        assert world.instance.can_log_in(private)
    finally:
        shutil.rmtree(moved)
