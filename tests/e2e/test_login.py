"""What the console says is what a real `ssh` login meets, both ways: let in and refused."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from sandbox.instance import Instance, KeyPair
from sandbox.users import temporary_user
from tests.e2e.support import TAG, World, make_world

_names = (f"key{number}" for number in itertools.count())


def _key(world: World, **options: object) -> KeyPair:
    return world.instance.keygen(next(_names), **options)  # type: ignore[arg-type]  # reason: options of keygen


def _in(world: World, key: KeyPair) -> bool:
    return world.instance.can_log_in(key.private_path)


@pytest.mark.parametrize(
    ("key_type", "bits"),
    [("ed25519", None), ("rsa", 2048), ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521)],
)
def test_an_added_key_gets_in(world: World, key_type: str, bits: int | None) -> None:
    """R1: a listed key can log in after the sync, and not before."""
    anchor, key = _key(world), _key(world, key_type=key_type, bits=bits)
    world.console.add_key(anchor.public_line)
    world.sync()
    key_id = world.console.add_key(key.public_line)
    assert not _in(world, key)
    report = world.sync()
    assert _in(world, key)
    added = report["targets"][0]["added"]
    assert [(entry["fingerprint"], entry["key_id"]) for entry in added] == [
        (key.fingerprint, key_id)
    ]


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", "\n\t{} "])
def test_white_space_around_a_key_is_no_matter(world: World, around: str) -> None:
    """Incident 1: the provider's own client sends a trailing newline; its owner must get in."""
    key = _key(world)
    before, _, behind = around.partition("{}")
    world.console.add_key(f"{before}{key.public_line}{behind}")
    report = world.sync()
    assert report["rejected"] == []
    assert _in(world, key)


def test_an_edited_key_replaces_the_old(world: World) -> None:
    """R2: editing on the console is old blob out, new in."""
    old, new = _key(world), _key(world)
    key_id = world.console.add_key(old.public_line)
    world.sync()
    assert _in(world, old)
    world.console.edit_key(key_id, new.public_line)
    report = world.sync()
    assert not _in(world, old)
    assert _in(world, new)
    assert report["targets"][0]["removed"][0]["fingerprint"] == old.fingerprint


def test_a_deleted_key_is_refused(world: World) -> None:
    """R2, R10: a deleted key is refused, the others still get in."""
    stays, goes = _key(world), _key(world)
    world.console.add_key(stays.public_line)
    key_id = world.console.add_key(goes.public_line)
    world.sync()
    assert _in(world, goes)
    world.console.delete_key(key_id)
    world.sync()
    assert not _in(world, goes)
    assert _in(world, stays)


def test_the_platforms_plain_line_is_adopted_and_can_be_deleted(world: World) -> None:
    """R3: without adoption a deleted key would stay for ever."""
    stays, platforms = _key(world), _key(world)
    world.instance.authorize(platforms.public_line)
    world.console.add_key(stays.public_line)
    key_id = world.console.add_key(platforms.public_line)
    report = world.sync()
    assert [e["fingerprint"] for e in report["targets"][0]["adopted"]] == [platforms.fingerprint]
    assert world.lines[0] == platforms.public_line.encode() + b" " + TAG
    assert _in(world, platforms)
    world.console.delete_key(key_id)
    world.sync()
    assert not _in(world, platforms)


def test_a_restricted_line_is_its_owners(world: World) -> None:
    """R4: never edited, never undercut while listed, and kept when the key is deleted."""
    stays, limited = _key(world), _key(world)
    line = f'restrict,command="echo limited" {limited.public_line}'
    world.instance.authorize(line)
    world.console.add_key(stays.public_line)
    key_id = world.console.add_key(limited.public_line)
    world.sync()
    assert world.instance.run(limited.private_path, "id") == "limited\n"
    world.console.delete_key(key_id)
    report = world.sync()
    assert world.lines[0] == line.encode()
    assert world.instance.run(limited.private_path, "id") == "limited\n"
    assert report["targets"][0]["restricted"][0]["reason"] == "revoked"
    notes = [key["note"] for key in world.status()["targets"][0]["keys"]]
    assert notes[0] == "deleted on the console, but still authorized by this restricted line"


def test_a_plain_line_beside_a_restriction_is_its_owners(world: World) -> None:
    """R4: keysync takes nobody's shell away; once the key is deleted, the plain line goes (R5)."""
    stays, limited = _key(world), _key(world)
    line = f'from="203.0.113.1" {limited.public_line}'
    world.instance.authorize(line, limited.public_line)
    assert _in(world, limited)  # the unrestricted line opens the door
    world.console.add_key(stays.public_line)
    key_id = world.console.add_key(limited.public_line)
    world.sync()
    assert _in(world, limited)
    assert world.lines[:2] == [line.encode(), limited.public_line.encode()]
    world.console.delete_key(key_id)
    world.sync()
    assert not _in(world, limited)
    assert world.lines[0] == line.encode()


def test_a_revoked_key_that_is_put_back_is_refused_again(world: World) -> None:
    """R5: revocation sticks, whatever form the line has when it comes back."""
    stays, goes = _key(world), _key(world)
    world.console.add_key(stays.public_line)
    key_id = world.console.add_key(goes.public_line)
    world.sync()
    managed = world.lines[1]
    world.console.delete_key(key_id)
    world.sync()
    for line in (goes.public_line.encode(), managed):
        with world.instance.authorized_keys.open("ab") as file:
            file.write(line + b"\n")
        assert _in(world, goes)
        world.sync()
        assert not _in(world, goes)
        assert _in(world, stays)


def test_a_deleted_key_that_is_added_again_gets_in(world: World) -> None:
    """R1 over R5: listed again is no longer revoked."""
    stays, returns = _key(world), _key(world)
    world.console.add_key(stays.public_line)
    key_id = world.console.add_key(returns.public_line)
    world.sync()
    world.console.delete_key(key_id)
    world.sync()
    assert not _in(world, returns)
    world.console.add_key(returns.public_line)
    world.sync()
    assert _in(world, returns)


def test_a_foreign_key_stays_and_strict_mode_removes_it(world: World) -> None:
    """R6 and R8: policy.unmanaged decides about a key that the console never held."""
    listed, foreign, pinned = _key(world), _key(world), _key(world)
    world.instance.authorize("# by hand", foreign.public_line)
    world.console.add_key(listed.public_line)
    world.sync()
    assert _in(world, foreign)
    pins = f"policy: {{unmanaged: remove}}\npins: ['{pinned.public_line}']\n"
    world.config.write_text(world.config.read_text() + pins)
    world.sync()
    assert not _in(world, foreign)
    assert _in(world, listed)
    assert _in(world, pinned)
    assert world.lines[0] == b"# by hand"


@pytest.mark.parametrize(("fault", "code"), [("outage", 75), ("html", 65), ("truncated", 65)])
def test_a_failure_locks_nobody_out(world: World, fault: str, code: int) -> None:
    """G1: no failure is read as "no keys"."""
    key = _key(world)
    world.console.add_key(key.public_line)
    world.sync()
    before = world.instance.authorized_keys.stat()
    world.console.fault = fault
    world.sync(exits=code)
    after = world.instance.authorized_keys.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert _in(world, key)


def test_the_last_key_goes_only_when_confirmed(world: World) -> None:
    """G3: an empty list is held until it is confirmed, and a new key gets in again."""
    key = _key(world)
    key_id = world.console.add_key(key.public_line)
    world.sync()
    world.console.delete_key(key_id)
    for _ in range(2):
        world.sync(exits=3)
        assert _in(world, key)
    world.sync("--confirm-removals", exits=4)
    assert not _in(world, key)
    world.console.add_key(key.public_line)
    world.sync()
    assert _in(world, key)


_WHY = "needs root: it makes an ordinary user and removes it again"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason=_WHY)


@pytest.fixture
def user_world(tmp_path: Path) -> Iterator[World]:
    """A target without a path: an ordinary user's real file, found by asking sshd."""
    with (
        temporary_user() as user,
        Instance(user, ".ssh/authorized_keys") as instance,
        Console() as console,
    ):
        yield make_world(instance, console, tmp_path, targets=f"[{{user: {user}}}]")


@needs_root
def test_root_serves_an_ordinary_users_own_file(user_world: World) -> None:
    """G9: the file that sshd reads is found and made, the user's own, and lets the key in."""
    key = _key(user_world)
    key_id = user_world.console.add_key(key.public_line)
    assert not user_world.instance.authorized_keys.parent.exists()
    user_world.sync()
    status = user_world.instance.authorized_keys.stat()
    assert status.st_mode & 0o7777 == 0o600
    assert user_world.instance.authorized_keys.owner() == user_world.instance.user
    assert _in(user_world, key)
    user_world.console.delete_key(key_id)
    user_world.sync("--confirm-removals", exits=4)
    assert not _in(user_world, key)


@needs_root
def test_the_platforms_moved_home_keeps_working(user_world: World) -> None:
    """G8: a .ssh that root made a link, as the platform's boot hook does, is followed."""
    home = user_world.instance.authorized_keys.parent.parent
    moved = home.parent / f"{home.name}-moved"
    moved.mkdir(mode=0o755)
    try:
        (moved / ".ssh").mkdir(mode=0o700)
        owner = home.stat()
        for path in (moved, moved / ".ssh"):
            os.chown(path, owner.st_uid, owner.st_gid)
        (home / ".ssh").symlink_to(moved / ".ssh")
        key = _key(user_world)
        user_world.console.add_key(key.public_line)
        user_world.sync()
        assert (home / ".ssh").is_symlink()
        assert _in(user_world, key)
    finally:
        shutil.rmtree(moved)
