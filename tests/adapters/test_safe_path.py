"""The way to a key file's directory: who can decide where it leads (G8), and making it (G9)."""

from __future__ import annotations

import gc
import os
import stat
from pathlib import Path

import pytest

from agent.adapters.files.atomic import Owner
from agent.adapters.files.safe_path import (
    make_directory,
    open_directory,
    open_file,
    require_root_controlled_path,
)
from agent.errors import TargetFailed
from tests.adapters.support import (
    User,
    adding,
    finish,
    leftovers,
    needs_root,
    python,
    umask,
    update,
)

ME = Owner(os.geteuid(), os.getegid())
ROOT = Owner(0, 0)


def opened(path: Path, owner: Owner) -> Path:
    """Where it leads."""
    fd = open_directory(str(path), owner)
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)


def open_descriptors() -> int:
    gc.collect()  # what an earlier test has left behind does not count
    return len(os.listdir("/proc/self/fd"))


# ---- links ----


@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_of_ones_own_is_followed(tmp_path: Path, absolute: bool) -> None:
    """Root's links for root; an ordinary user's for that user."""
    (tmp_path / "real" / "deep").mkdir(parents=True, mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real" if absolute else Path("real"))
    (tmp_path / "chain").symlink_to("link/../link/deep/.")
    assert opened(tmp_path / "chain", ME) == (tmp_path / "real" / "deep").resolve()
    assert opened(tmp_path / "link" / "deep", ME) == (tmp_path / "real" / "deep").resolve()


def test_a_missing_directory_is_missing(tmp_path: Path) -> None:
    """The caller decides what it means; nothing is left open."""
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        open_directory(str(tmp_path / "no" / "where"), ME)
    (tmp_path / "dangling").symlink_to(tmp_path / "no")
    with pytest.raises(FileNotFoundError):
        open_directory(str(tmp_path / "dangling"), ME)
    assert open_descriptors() == before


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    """As the kernel's own walk does (path_resolution(7)); nothing is left open."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    before = open_descriptors()
    with pytest.raises(TargetFailed, match="Too many symbolic links"):
        open_directory(str(tmp_path / "a"), ME)
    assert open_descriptors() == before


@needs_root
def test_a_link_of_the_users_is_not_followed(user: User, tmp_path: Path) -> None:
    """G8: not even to a directory of the user's own; the message says whose link it is."""
    (user.home / "real").mkdir()
    user.give(user.home / "real")
    user.run("ln", "-s", "real", str(user.ssh))
    before = open_descriptors()
    with pytest.raises(TargetFailed, match=f"user id {user.uid}") as failure:
        open_directory(str(user.ssh), user.owner)
    assert failure.value.kind == "symlink"
    assert str(user.ssh) in failure.value.message
    assert open_descriptors() == before


@needs_root
@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o775])
def test_a_link_of_roots_that_somebody_moved(user: User, tmp_path: Path, mode: int) -> None:
    """G8: a user can bring a link that root made elsewhere to where root's own path leads by, also
    past the sticky bit, and so choose among root's folders; only their own are safe to use.
    """
    (tmp_path / "roots").mkdir(mode=0o700)
    crowd = tmp_path / "crowd"
    crowd.mkdir()
    crowd.chmod(mode)
    (crowd / "keys").symlink_to(tmp_path / "roots")
    with pytest.raises(TargetFailed) as failure:
        open_directory(str(crowd / "keys"), ROOT)
    assert failure.value.kind == "wrong_owner"
    (tmp_path / "theirs").mkdir(mode=0o700)
    user.give(tmp_path / "theirs")
    (crowd / "theirs").symlink_to(tmp_path / "theirs")
    assert opened(crowd / "theirs", user.owner) == tmp_path / "theirs"


@needs_root
def test_a_link_of_the_users_on_the_way_is_not_followed(user: User) -> None:
    """G8: any part of the path counts, not only the last."""
    user.make_ssh()
    user.run("ln", "-s", ".", str(user.home / "here"))
    with pytest.raises(TargetFailed, match="'here' on the way to"):
        open_directory(str(user.home / "here" / ".ssh"), user.owner)


@needs_root
def test_the_platforms_layout(user: User, tmp_path: Path) -> None:
    """G8: homes moved by root, /home/NAME/.ssh a link of root's to a directory of the user's."""
    moved = tmp_path / "home_ssh" / user.name / ".ssh"
    moved.mkdir(parents=True, mode=0o700)
    user.give(moved)
    user.ssh.symlink_to(moved)
    assert opened(user.ssh, user.owner) == moved


# ---- owners ----


@needs_root
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_roots_directory_where_others_can_exchange_it(tmp_path: Path, mode: int) -> None:
    """G8: whoever may write in the parent can put another directory of root's in its place."""
    (tmp_path / "open" / "keys").mkdir(parents=True, mode=0o700)
    (tmp_path / "open").chmod(mode)
    with pytest.raises(TargetFailed, match="others can put directories in its place") as failure:
        open_directory(str(tmp_path / "open" / "keys"), ROOT)
    assert failure.value.kind == "wrong_owner"
    assert "chmod go-w" in failure.value.hint
    (tmp_path / "open").chmod(mode | stat.S_ISVTX)  # as /tmp: only the owner can rename it
    assert opened(tmp_path / "open" / "keys", ROOT) == tmp_path / "open" / "keys"


@needs_root
def test_somebody_elses_directory_is_refused(user: User, tmp_path: Path) -> None:
    """G8: neither another user's nor, for root, an ordinary user's."""
    user.make_ssh()
    for owner in (ROOT, Owner(12345, 12345)):
        with pytest.raises(TargetFailed, match=f"belongs to user id {user.uid}"):
            open_directory(str(user.ssh), owner)
    assert opened(user.ssh, user.owner) == user.ssh


@needs_root
def test_a_directory_of_roots_for_all_users(user: User, tmp_path: Path) -> None:
    """sshd_config(5): AuthorizedKeysFile /etc/ssh/keys/%u is such a one, and safe."""
    (tmp_path / "keys").mkdir(mode=0o755)
    assert opened(tmp_path / "keys", user.owner) == tmp_path / "keys"


@needs_root
def test_a_way_of_others_is_refused_as_far_as_it_exists(user: User, tmp_path: Path) -> None:
    """G8: before root makes folders on a path, nobody else may be able to lead it elsewhere."""
    require_root_controlled_path(str(tmp_path / "not" / "yet"))
    (tmp_path / "link").symlink_to("not-there")
    require_root_controlled_path(str(tmp_path / "link" / "state"))
    before = open_descriptors()
    for path in (user.home, user.home / "state", user.home / "not" / "yet"):
        with pytest.raises(TargetFailed, match="others can put directories in its place"):
            require_root_controlled_path(str(path))
    assert open_descriptors() == before


# ---- files ----


def content(path: Path) -> bytes:
    with open(open_file(str(path)), "rb") as file:
        return file.read()


def test_a_file_behind_links_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute, relative and chained, and a path that begins where one stands."""
    (tmp_path / "real" / "deep").mkdir(parents=True, mode=0o700)
    (tmp_path / "real" / "deep" / "file").write_bytes(b"key")
    (tmp_path / "real" / "relative").symlink_to("deep/../deep/file")
    (tmp_path / "absolute").symlink_to(tmp_path / "real" / "relative")
    assert content(tmp_path / "absolute") == b"key"
    monkeypatch.chdir(tmp_path / "real")
    assert content(Path("deep/file")) == b"key"


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """OSError says what it is; nothing is left open, and a pipe is not waited for."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    before = open_descriptors()
    for name, words in (
        ("loop", "Too many levels"),
        ("dangling", "No such file"),
        ("pipe", "not a regular file"),
        (".", "not a regular file"),
    ):
        with pytest.raises(OSError, match=words):
            open_file(str(tmp_path / name))
    assert open_descriptors() == before


@needs_root
def test_a_file_that_somebody_else_chose(user: User, tmp_path: Path) -> None:
    """G8: whose link or folder is on the way decides which of root's files is read."""
    (tmp_path / "secret").write_bytes(b"root's")
    user.run("ln", "-s", str(tmp_path / "secret"), str(user.home / "link"))
    (user.home / "roots").write_bytes(b"root's")
    (user.home / "roots-link").symlink_to(tmp_path / "secret")
    (tmp_path / "theirs").symlink_to(user.home / "roots")
    before = open_descriptors()
    for path in (user.home / "link", user.home / "roots", user.home / "roots-link"):
        with pytest.raises(TargetFailed, match=f"belongs to user id {user.uid}") as failure:
            open_file(str(path))
        assert str(path) in failure.value.message
    with pytest.raises(TargetFailed, match="belongs to user id"):
        open_file(str(tmp_path / "theirs"))
    (tmp_path / "moved").symlink_to(tmp_path / "secret")
    os.chown(tmp_path / "moved", user.uid, user.gid, follow_symlinks=False)
    with pytest.raises(TargetFailed, match="is a symbolic link that user id"):
        open_file(str(tmp_path / "moved"))
    assert open_descriptors() == before


# ---- making it ----


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_a_new_directory_is_the_users_alone(tmp_path: Path, mask: int) -> None:
    """G9: 0700 whatever the umask, and nothing else is left in the parent."""
    with umask(mask):
        os.close(make_directory(str(tmp_path / ".ssh"), ME))
    status = (tmp_path / ".ssh").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, ME.uid)
    assert leftovers(tmp_path) == [".ssh"]


def test_a_missing_home_is_a_failure_by_name(tmp_path: Path) -> None:
    """Only the last part is made: a home that is missing is somebody's mistake."""
    with pytest.raises(TargetFailed, match=f"{tmp_path / 'home'} does not exist") as failure:
        make_directory(str(tmp_path / "home" / ".ssh"), ME)
    assert failure.value.kind == "missing"
    assert not (tmp_path / "home").exists()


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    """G7: an empty directory that was never renamed goes, one that somebody uses stays."""
    (tmp_path / "..ssh.keysync-0123456789abcdef").mkdir()
    (tmp_path / "..ssh.keysync-full" / "x").mkdir(parents=True)
    os.close(make_directory(str(tmp_path / ".ssh"), ME))
    assert leftovers(tmp_path) == ["..ssh.keysync-full", ".ssh"]


def test_somebody_else_makes_it_at_the_same_time(tmp_path: Path) -> None:
    """G7: `mkdir -p .ssh; cat >> .ssh/authorized_keys` beside the first sync loses nothing."""
    script = """
os.chdir(sys.argv[1])
print("begun")
for number in range(200):
    os.makedirs(f"{number}", exist_ok=True)
    with open(f"{number}/authorized_keys", "ab") as file:
        file.write(b"theirs\\n")
"""
    with python(script, str(tmp_path)) as other:
        for number in range(200):
            update(tmp_path / str(number) / "authorized_keys", ME, adding(b"ours"))
        finish(other)
    found = [(tmp_path / str(number) / "authorized_keys").read_bytes() for number in range(200)]
    assert {frozenset(data.split()) for data in found} == {frozenset({b"ours", b"theirs"})}


@needs_root
@pytest.mark.parametrize("what", ["symlink", "dangling symlink", "file", "pipe"])
def test_what_lies_in_its_place_is_not_used(user: User, tmp_path: Path, what: str) -> None:
    """G8: neither followed nor replaced nor given away."""
    if what == "pipe":
        os.mkfifo(user.ssh)
    elif what == "file":
        user.ssh.touch()
    else:
        user.ssh.symlink_to(tmp_path if what == "symlink" else tmp_path / "new")
    user.give(user.ssh)
    with pytest.raises((TargetFailed, OSError)):
        make_directory(str(user.ssh), user.owner)
    assert os.listdir(tmp_path) == []
    assert leftovers(user.home) == [".ssh"]
    assert not user.ssh.is_dir() or user.ssh.is_symlink()


# ---- as an ordinary user ----


@needs_root
def test_an_ordinary_user_serves_their_own_file(user: User, tmp_path: Path) -> None:
    """Machines: without root's power, links of one's own are followed and others' are not."""
    (user.home / "real").mkdir()
    user.give(user.home / "real")
    script = """
import agent.adapters.files.key_file
print("begun")
os.setgroups([]); os.setresgid({gid}, {gid}, {gid}); os.setresuid({uid}, {uid}, {uid})
os.chdir({home!r})
from agent.adapters.files.atomic import Owner
from agent.errors import TargetFailed
from agent.adapters.files.key_file import KeyFile
def sync(path):
    with KeyFile.opened(path, Owner({uid}, {gid}), for_writing=True) as file:
        file.update(lambda data: b"line\\n", lambda old: None)
os.symlink("real", ".ssh")
sync({home!r} + "/.ssh/authorized_keys")
try:
    sync({home!r} + "/theirs/authorized_keys")
except TargetFailed as failure:
    print(failure.kind)
"""
    (user.home / "theirs").symlink_to("real")
    os.chown(user.home / "theirs", 12345, 12345, follow_symlinks=False)
    text = script.format(uid=user.uid, gid=user.gid, home=str(user.home))
    root = str(Path(__file__).parents[2])
    with python(f"sys.path.insert(0, {root!r})\n{text}") as process:
        assert finish(process) == ["symlink"]
    found = user.home / "real" / "authorized_keys"
    assert found.read_bytes() == b"line\n"
    assert (found.stat().st_uid, stat.S_IMODE(found.stat().st_mode)) == (user.uid, 0o600)
